"""The keys of one target: their order, their calls in flight, and which of them cool or are parked."""

from __future__ import annotations

import asyncio
from collections import deque

from engine.core.clock import Clock
from engine.core.errors import ConfigError, InferenceError, Throttled, nearest
from engine.schemas.policy import RouteSpec

_LONGEST_COOL_S = 60.0
"""Cap of the doubling pause of a key that is throttled without a hint."""


class KeyState:
    """One key. Times are in seconds of the monotonic clock."""

    __slots__ = (
        "answered",
        "barred",
        "cool_until",
        "credit",
        "doubted_by",
        "in_flight",
        "name",
        "parked",
        "parked_until",
        "place",
        "strikes",
        "throttled_at",
        "weight",
    )

    parked_until: float
    """End of the parking."""

    def __init__(self, name: str, place: int, weight: float) -> None:
        self.name = name
        self.place = place
        self.weight = weight
        self.credit = 0.0
        self.in_flight = 0
        self.strikes = 0
        """Throttles in a row, a burst counted once."""
        self.throttled_at = float("-inf")
        self.cool_until = float("-inf")
        """End of the cooling; until then other keys are preferred."""
        self.barred = False
        """True: it is not used at all while it cools."""
        self.parked: InferenceError | None = None
        self.answered = False
        """True if it has worked since it was last disabled."""
        self.doubted_by: str | None = None
        """The request for which it was refused after it had worked."""


class KeyRing:
    """Hands out keys. Lives on one event loop.

    A throttle cools the key for as long as the hint says: other keys are preferred. A second throttle in a row, of a
    call that began after the first, bars it for that time: a call would only be refused. When more than half of the
    keys cool at once, their account is throttled, and all of them are barred. `auth` parks a key until `unpark`,
    `quota_exhausted` until the reset that the provider named. A key that has worked is not parked by one request's
    `auth`, which may be about that request: a second request decides.
    """

    def __init__(self, names: tuple[str, ...], spec: RouteSpec, clock: Clock) -> None:
        """Raises ConfigError when `spec` names a key that is not there."""
        for name in (*spec.weights, *([spec.key] if spec.keys == "specific" and spec.key else ())):
            if names and name not in names:
                raise ConfigError(f"policy.route: no key {name!r} at this target; {nearest(name, names)}")
        if spec.keys == "specific" and names and not spec.key:
            raise ConfigError(f"policy.route.keys=specific needs policy.route.key; one of: {', '.join(names)}")
        if spec.keys == "specific":
            names = tuple(name for name in names if name == spec.key)
        self.names = names
        self.spec = spec
        self.clock = clock
        self._keys = {name: KeyState(name, place, spec.weights.get(name, 1.0)) for place, name in enumerate(names)}
        self._states = list(self._keys.values())
        self._only = self._states[0] if len(self._states) == 1 and spec.key_concurrency is None else None
        self._turn = 0
        self._line: deque[tuple[str | None, asyncio.Future[str]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    # -- taking and giving back ---------------------------------------------------------------------------------

    def try_acquire(self, avoid: str | None = None) -> str | None:
        """Returns a key that can be used at once; None if no key is needed, or `acquire` has to wait for one."""
        if not self._states or self._line:
            return None
        key = self._pick(avoid)
        return None if key is None else self._take(key)

    async def acquire(self, avoid: str | None = None) -> str | None:
        """Returns a key, not `avoid` if there is another; None if no key is needed.

        Waits while all cool or are at their limit. Raises the error that parked the last usable key, or Throttled when
        all are barred and `on_parked` is fail.
        """
        if not self._states:
            return None
        key = self.try_acquire(avoid)
        if key is not None:
            return key
        self._refuse()
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._line.append((avoid, turn))
        self._schedule()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())  # the key was given in the instant of the cancellation
            raise

    def release(self, name: str | None) -> None:
        """Returns a key after its call."""
        if name is not None:
            self._keys[name].in_flight -= 1
            if self._line:
                self._serve()

    # -- the outcome of its calls -------------------------------------------------------------------------------

    def succeeded(self, name: str, started: float) -> None:
        """`started`: when the call began; one that began before a throttle says nothing about it."""
        key = self._keys[name]
        key.answered, key.doubted_by = True, None
        if key.strikes and started >= key.throttled_at:
            key.strikes, key.barred, key.cool_until = 0, False, float("-inf")
            self._serve()

    def throttled(self, name: str, started: float, hint_s: float | None) -> bool:
        """Cools a key. True: another one can be used at once."""
        key, now = self._keys[name], self.clock.monotonic()
        if started >= key.throttled_at:
            key.strikes += 1
            key.throttled_at = now
        pause = hint_s
        if pause is None:
            pause = min(_LONGEST_COOL_S, self.spec.cool_s * 2 ** min(max(key.strikes - 1, 0), 16))
        key.cool_until = max(key.cool_until, now + pause)
        key.barred = key.strikes > 1 or pause > self.spec.park_after_s
        usable = [each for each in self._states if self._usable(each, now)]
        cooling = [each for each in usable if each.cool_until > now]
        if len(usable) > 1 and 2 * len(cooling) > len(usable):
            until = max(each.cool_until for each in cooling)
            for each in usable:
                each.cool_until, each.barred = until, True
        return any(each is not key and each.cool_until <= now for each in usable)

    def refused(self, name: str, error: InferenceError, request: str) -> bool:
        """Judges a key whose call ended with `auth` or `quota_exhausted`. True: the request may try another key.

        A key that has worked is parked by the `auth` of a second request only. One request gets at most one more key
        that has worked: when that refuses it, too, the fault is the request's, and no key is in doubt.
        """
        key = self._keys[name]
        if error.kind != "auth" or not key.answered or key.doubted_by not in (None, request):
            return self.park(name, error)
        others = [each for each in self._states if each is not key]
        again = any(each.doubted_by == request for each in others)
        if again:
            for each in others:
                each.doubted_by = None if each.doubted_by == request else each.doubted_by
            return False
        key.doubted_by = request
        now = self.clock.monotonic()
        return any(self._usable(each, now) for each in others)

    def park(self, name: str, error: InferenceError) -> bool:
        """Takes a key out of use. True: others are left."""
        key, now = self._keys[name], self.clock.monotonic()
        key.parked, key.answered, key.doubted_by = error, False, None
        known = error.kind == "quota_exhausted" and error.retry_after_s is not None
        key.parked_until = now + (error.retry_after_s or 0.0) if known else float("inf")
        left = any(self._usable(each, now) for each in self._states)
        if not left:
            while self._line:
                turn = self._line.popleft()[1]
                if not turn.done():
                    turn.set_exception(_again(error))
        return left

    def unpark(self, name: str | None = None) -> None:
        """Brings a parked or cooling key back, or all of them."""
        for key in self._states:
            if name is None or key.name == name:
                key.parked, key.strikes, key.barred, key.cool_until = None, 0, False, float("-inf")
        self._serve()

    # -- what is known ------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> dict[str, int]:
        return {key.name: key.in_flight for key in self._states}

    @property
    def parked(self) -> dict[str, InferenceError]:
        """Returns the reason of each key that is out of use."""
        now = self.clock.monotonic()
        return {key.name: key.parked for key in self._states if key.parked and not self._usable(key, now)}

    @property
    def exhausted(self) -> bool:
        """True when keys are needed and none can be used any more."""
        now = self.clock.monotonic()
        return bool(self._states) and not any(self._usable(key, now) for key in self._states)

    @property
    def reasons(self) -> dict[str, str]:
        """Returns the reason of each parked key, in the provider's words."""
        return {name: f"{error.kind}: {error.message}" for name, error in self.parked.items()}

    def state(self, name: str) -> str:
        """ready, cooling 1.2 s, barred 1.2 s, or parked with its reason."""
        key, now = self._keys[name], self.clock.monotonic()
        if not self._usable(key, now) and key.parked is not None:
            return f"parked: {key.parked.kind}"
        if key.cool_until > now:
            return f"{'barred' if key.barred else 'cooling'} {key.cool_until - now:.1f} s"
        return "ready"

    def holding(self) -> str | None:
        """Names the keys that calls wait for, with the time that each still takes; None if no call waits."""
        if all(turn.done() for _, turn in self._line):
            return None
        held = [f"key {name} {self.state(name)}" for name in self.names if self.state(name) != "ready"]
        return ", ".join(held) or f"every key is at policy.route.key_concurrency={self.spec.key_concurrency}"

    def preview(self) -> tuple[str | None, str]:
        """Returns the key that the next call would get, and the reason; takes nothing."""
        turn, credits = self._turn, [key.credit for key in self._states]
        key = self._pick(None)
        self._turn = turn
        for state, credit in zip(self._states, credits, strict=True):
            state.credit = credit
        others = [f"{name} is {self.state(name)}" for name in self.names if self.state(name) != "ready"]
        if key is None:
            return None, "; ".join(others) or "every key is at its limit (policy.route.key_concurrency)"
        how = self.spec.keys if len(self.names) > 1 else "the only one"
        return key.name, "; ".join([how, *others])

    def gauges(self) -> dict[str, float]:
        now = self.clock.monotonic()
        usable = [key for key in self._states if self._usable(key, now)]
        return {
            "keys": len(self._states),
            "keys_parked": len(self._states) - len(usable),
            "keys_cooling": sum(key.cool_until > now for key in usable),
            "keys_waiting": len(self._line),
            **{f"key_in_flight/{key.name}": key.in_flight for key in self._states},
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _usable(self, key: KeyState, now: float) -> bool:
        if key.parked is not None and now >= key.parked_until:
            key.parked = None
        return key.parked is None

    def _free(self, key: KeyState, now: float) -> bool:
        limit = self.spec.key_concurrency
        return (
            self._usable(key, now)
            and not (key.barred and key.cool_until > now)
            and (limit is None or key.in_flight < limit)
        )

    def _pick(self, avoid: str | None) -> KeyState | None:
        """Returns the next key in turn; None if none can be used now."""
        only = self._only
        if only is not None and only.parked is None and not only.barred:
            return only
        now = self.clock.monotonic()
        free = [key for key in self._states if self._free(key, now)]
        if len(free) > 1:
            free = [key for key in free if key.cool_until <= now] or [min(free, key=lambda key: key.cool_until)]
        if len(free) > 1 and avoid is not None:
            free = [key for key in free if key.name != avoid]
        if len(free) < 2:
            return free[0] if free else None
        choice = self.spec.keys
        if choice == "least_loaded":
            return min(free, key=lambda key: key.in_flight)
        if choice == "weighted":
            return _smooth(free)
        chosen = min(free, key=lambda key: (key.place - self._turn) % len(self._states))
        self._turn = chosen.place + 1
        return chosen

    @staticmethod
    def _take(key: KeyState) -> str:
        key.in_flight += 1
        return key.name

    def _refuse(self) -> None:
        """Raises if waiting for a key is pointless."""
        now = self.clock.monotonic()
        usable = [key for key in self._states if self._usable(key, now)]
        if not usable:
            parked = min(self._states, key=lambda key: key.parked_until).parked
            assert parked is not None
            raise _again(parked)
        if self.spec.on_parked == "fail" and all(key.barred and key.cool_until > now for key in usable):
            wait = min(key.cool_until for key in usable) - now
            raise Throttled(
                f"every key of this target is throttled; the first comes back in {wait:.1f} s", retry_after_s=wait
            )

    def _serve(self) -> None:
        """Gives the free keys to the waiting requests."""
        while self._line:
            avoid, turn = self._line[0]
            if turn.done():
                self._line.popleft()
                continue
            key = self._pick(avoid)
            if key is None:
                break
            self._line.popleft()
            turn.set_result(self._take(key))
        self._schedule()

    def _schedule(self) -> None:
        """Wakes up when the first barred key comes back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self.clock.monotonic()
        times = [key.cool_until for key in self._states if key.barred and key.cool_until > now and key.parked is None]
        times += [key.parked_until for key in self._states if key.parked is not None]
        soonest = min(times, default=float("inf"))
        if self._line and soonest != float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(0.0, soonest - now), self._serve)


def _smooth(keys: list[KeyState]) -> KeyState:
    """Smooth weighted round-robin, as in nginx: in proportion, and evenly spread."""
    for key in keys:
        key.credit += key.weight
    chosen = max(keys, key=lambda key: key.credit)
    chosen.credit -= sum(key.weight for key in keys)
    return chosen


def _again(error: InferenceError) -> InferenceError:
    """Copies the error for another request: an exception that is raised twice collects both tracebacks."""
    twin = type(error)(
        error.message,
        status=error.status,
        retry_after_s=error.retry_after_s,
        provider_request_id=error.provider_request_id,
        code=error.code,
    )
    twin.__cause__ = error
    return twin
