"""Stops calls to an endpoint that is down, and finds out with few calls when it is back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from random import Random

from engine.core.clock import Clock
from engine.core.errors import CircuitOpen, InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import BreakerSpec

_REFUSALS = frozenset({"throttled", "overloaded"})


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class _Sample:
    """One call in the window."""

    __slots__ = ("at", "failed", "inside", "slow")

    def __init__(self, at: float, failed: bool, slow: bool) -> None:
        self.at = at
        self.failed = failed
        self.slow = slow
        self.inside = True


class Permit:
    """The right to one call, in the generation in which it was given. Settled exactly once."""

    __slots__ = ("generation", "probe", "sample", "settled", "started")

    def __init__(self, generation: int, started: float, probe: bool) -> None:
        self.generation = generation
        self.started = started
        self.probe = probe
        self.settled = False
        self.sample: _Sample | None = None
        """Set if the call was found slow while in flight, and is in the window already."""


class Breaker:
    """The circuit of one endpoint and model.

    A result from an earlier generation changes nothing. Transitions are lazy: there are no timers. Times are in
    seconds of the monotonic clock. `mode` may be changed at any time.
    """

    def __init__(self, name: str, spec: BreakerSpec, clock: Clock, rng: Random) -> None:
        self.name = name
        self.spec = spec
        self.mode = spec.mode
        self.clock = clock
        self.rng = rng
        self.generation = 0
        self.trips = 0
        self.rejections = 0
        self.on_close: list[Callable[[], None]] = []
        """Called when the circuit has closed after an outage."""
        self._window: deque[_Sample] = deque()
        self._under_way: dict[Permit, None] = {}
        """Permits in the order in which they were given, kept while slow calls are detected."""
        self._in_a_row: int
        """Failures in a row."""
        self._refusals: int
        """Refusals in a row without a success; of calls that were in flight together, one counts."""
        self._refused_first: float
        self._refused_last: float
        self._by_refusals = False
        """True if refusals opened the circuit: then a refused half-open trial is a failed one."""
        self._open_until: float
        self._hint_until: float
        self._half_open_until: float
        self._change: asyncio.Future[None] | None = None
        self.reset()

    # -- permits ------------------------------------------------------------------------------------------------

    def try_acquire(self) -> Permit:
        """Returns a permit, to be settled exactly once. Raises CircuitOpen, with the time until the next chance."""
        if self.mode != "auto":
            return self._by_mode()
        now = self.clock.monotonic()
        if self.spec.slow_after_s is not None:
            self._find_slow(now, self.spec.slow_after_s)
        if self.state is State.CLOSED:
            return self._permit(now)
        if self.state is State.HALF_OPEN and now >= self._half_open_until:
            self._open()  # the probes did not come back in time
        if self.state is State.OPEN:
            if now < self._open_until:
                raise self._rejection(self._open_until - now)
            self._enter(State.HALF_OPEN)
            self._half_open_until = now + (self.spec.half_open_s or float("inf"))
        if self._probing >= self.spec.probes:
            raise self._rejection(min(1.0, self.spec.open_s / 5))
        self._probing += 1
        return self._permit(now, probe=True)

    def settle(
        self, permit: Permit, failed: bool | None, retry_after_s: float | None = None, refused: bool = False
    ) -> None:
        """`failed` None: the call says nothing about the endpoint (cancelled, throttled, the caller's mistake).

        `refused`: the endpoint turned the call away (429, 503). One refusal says nothing about it either, but
        `spec.refusals` in a row over `spec.refused_s`, without a success, open the circuit.
        """
        if permit.settled:
            return
        permit.settled = True
        if self._under_way:
            self._under_way.pop(permit, None)
        if permit.generation != self.generation:
            return
        if permit.probe:
            self._probing -= 1
            if refused and self._by_refusals:
                failed = True
            if failed is None:
                self._tell()  # its place is free: another call has to find out
        if self.mode in ("disabled", "forced_open"):
            return
        now = self.clock.monotonic()
        if retry_after_s is not None:
            self._hint_until = max(self._hint_until, now + retry_after_s)
        limit = self.spec.slow_after_s
        slow = limit is not None and now - permit.started > limit
        if failed is None:
            if refused and self.state is State.CLOSED:
                self._refused(now, permit)
            return
        if not failed:
            self._refusals = 0
        if self.state is State.CLOSED or self.mode == "metrics_only":
            self._ended(now, permit, failed, slow)
        elif permit.probe:
            self._settle_probe(failed or slow)

    def answered(self, permit: Permit) -> None:
        """Notes the first chunk of a stream: the duration of the rest says nothing about health."""
        limit = self.spec.slow_after_s
        if limit is not None and self.clock.monotonic() - permit.started <= limit:
            self._under_way.pop(permit, None)
            permit.started = float("inf")

    def change(self) -> asyncio.Future[None]:
        """Ends when another call may pass. On the event loop of its callers, who must not cancel it."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    # -- by hand ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Closes the circuit and clears its counts."""
        self._opened_in_a_row = 0
        self._by_refusals = False
        self._hint_until = 0.0
        self._enter(State.CLOSED)

    @property
    def open_for_s(self) -> float:
        """Returns the seconds until the circuit may be tried again; 0: now."""
        if self.mode == "forced_open":
            return float("inf")
        if self.mode != "auto" or self.state is not State.OPEN:
            return 0.0
        return max(0.0, self._open_until - self.clock.monotonic())

    def gauges(self) -> dict[str, float]:
        return {
            "breaker_state": float(("closed", "half_open", "open").index(self.state.value)),
            "breaker_trips": self.trips,
            "breaker_rejections": self.rejections,
            "breaker_window_calls": len(self._window),
            "breaker_window_failures": self._failures,
            "breaker_window_slow": self._slow,
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _by_mode(self) -> Permit:
        if self.mode == "forced_open":
            self.rejections += 1
            raise CircuitOpen(f"the circuit of {self.name} was opened by hand (policy.breaker.mode=forced_open)")
        return self._permit(self.clock.monotonic())

    def _permit(self, now: float, probe: bool = False) -> Permit:
        permit = Permit(self.generation, now, probe)
        if self.spec.slow_after_s is not None:
            self._under_way[permit] = None
        return permit

    def _find_slow(self, now: float, limit: float) -> None:
        """Counts calls that are slow already, before they end; the oldest first."""
        while self._under_way:
            permit = next(iter(self._under_way))
            if now - permit.started <= limit:
                return
            del self._under_way[permit]
            if permit.generation == self.generation and self.state is State.CLOSED:
                permit.sample = _Sample(now, False, True)
                self._add(permit.sample)
                self._judge(False, True)

    def _settle_probe(self, failed: bool) -> None:
        majority = self.spec.probes // 2 + 1
        if failed:
            self._probe_failures += 1
            if self._probe_failures > self.spec.probes - majority:
                self._open()
        else:
            self._probe_successes += 1
            if self._probe_successes >= majority:
                self._opened_in_a_row = 0
                self._by_refusals = False
                self._enter(State.CLOSED)
                for callback in self.on_close:
                    callback()

    def _ended(self, now: float, permit: Permit, failed: bool, slow: bool) -> None:
        """Counts a call's end; a call that was found slow before is in the window, and may still fail."""
        sample = permit.sample
        if sample is None:
            self._add(_Sample(now, failed, slow))
        elif failed and sample.inside:
            sample.failed = True
            self._failures += 1
        self._in_a_row = self._in_a_row + 1 if failed else 0
        if failed or slow:
            self._judge(failed, slow)

    def _add(self, sample: _Sample) -> None:
        window, spec = self._window, self.spec
        window.append(sample)
        self._failures += sample.failed
        self._slow += sample.slow
        while len(window) > spec.window or (spec.window_s is not None and sample.at - window[0].at > spec.window_s):
            oldest = window.popleft()
            oldest.inside = False
            self._failures -= oldest.failed
            self._slow -= oldest.slow

    def _judge(self, failed: bool, slow: bool) -> None:
        """Opens the circuit if the latest count exceeds a threshold."""
        spec, calls = self.spec, len(self._window)
        if self.mode == "metrics_only":
            return
        in_a_row = failed and spec.consecutive_failures is not None and self._in_a_row >= spec.consecutive_failures
        enough = calls >= spec.min_calls
        by_failures = failed and enough and self._failures >= spec.failure_threshold * calls
        by_slowness = slow and enough and self._slow >= spec.slow_threshold * calls
        if in_a_row or by_failures or by_slowness:
            self._open()

    def _refused(self, now: float, permit: Permit) -> None:
        """Counts a refusal, and opens the circuit when refusals have lasted without a success."""
        spec = self.spec
        if self._refusals and permit.started < self._refused_last:
            return  # it was in flight at the last refusal: not counted again
        self._refused_first = now if not self._refusals else self._refused_first
        self._refused_last = now
        self._refusals += 1
        lasted = now - self._refused_first >= spec.refused_s
        if spec.refusals is not None and self._refusals >= spec.refusals and lasted and self.mode == "auto":
            self._open()
            self._by_refusals = True

    def _open(self) -> None:
        self._opened_in_a_row += 1
        self.trips += 1
        now = self.clock.monotonic()
        pause = min(self.spec.max_open_s, self.spec.open_s * 2 ** min(self._opened_in_a_row - 1, 64))
        # Jitter only lengthens: several processes must not probe in the same instant.
        self._open_until = max(now + pause * self.rng.uniform(1.0, 1.1), self._hint_until)
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self._tell()
        self._window.clear()
        self._under_way.clear()
        self._failures = self._slow = self._in_a_row = self._refusals = 0
        self._refused_first = self._refused_last = float("-inf")
        self._probing = self._probe_successes = self._probe_failures = 0

    def _tell(self) -> None:
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    def _rejection(self, wait_s: float) -> CircuitOpen:
        self.rejections += 1
        rejection = CircuitOpen(
            f"the circuit of {self.name} is {self.state.value.replace('_', ' ')}; next chance in {wait_s:.1f} s",
            retry_after_s=wait_s,
        )
        rejection.probing = self.state is State.HALF_OPEN
        if rejection.probing and self.spec.half_open_s is not None:
            rejection.known_in_s = max(0.0, self._half_open_until - self.clock.monotonic())
        return rejection


class CircuitBreaker(Middleware):
    """Requests a permit, never waits for one, and settles it when the attempt or its stream has ended."""

    name = "breaker"
    why = "the last gate before the call: a permit taken before a wait goes stale"
    wraps = {"timeout": "the breaker must see timeouts"}

    def __init__(self, next: Stage, breakers: tuple[Breaker, ...]) -> None:
        """`breakers`: one for each endpoint of the target, in their order."""
        self.next = next
        self.breakers = breakers

    async def __call__(self, request: Request, context: Context) -> Result:
        attempt = context.attempt
        breaker = self.breakers[attempt.place if attempt is not None else 0]
        try:
            permit = breaker.try_acquire()
        except CircuitOpen as rejection:
            if rejection.probing:
                rejection.change = breaker.change()
            raise
        try:
            result = await self.next(request, context)
        except InferenceError as error:
            breaker.settle(permit, verdict(error), error.retry_after_s, refused=error.kind in _REFUSALS)
            raise
        except BaseException:
            breaker.settle(permit, None)
            raise
        stream = result.stream
        if stream is None:
            breaker.settle(permit, False)
            return result
        stream.on_settle(
            lambda error: breaker.settle(
                permit,
                verdict(error),
                error.retry_after_s if error else None,
                refused=error is not None and error.kind in _REFUSALS,
            )
        )
        if stream.primed:
            breaker.answered(permit)
        else:
            stream.on_first(lambda: breaker.answered(permit))
        return result


def verdict(error: InferenceError | None) -> bool | None:
    """True: a failure of the endpoint; False: a success; None: neither."""
    if error is None:
        return False
    return True if error.counts_for_breaker else None


def breakers_of(context: LayerContext) -> tuple[Breaker, ...]:
    """Returns the circuits of a target's endpoints; empty for a model in this process, or when the policy is off."""
    spec = context.policy.breaker
    if not spec.enabled or context.target.provider.kind == "local":
        return ()
    resources, model = context.resources, context.target.model_id

    def one(endpoint: str) -> Breaker:
        name = context.name if len(context.endpoints) == 1 else f"{context.name} at {endpoint}"
        return resources.get(("breaker", endpoint, model), lambda: Breaker(name, spec, resources.clock, resources.rng))

    return tuple(one(endpoint) for endpoint in context.endpoints)


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.breaker
    breakers = breakers_of(context)
    if not breakers:
        return None
    settings = (
        f"opens at {spec.failure_threshold:.0%} of ≥{spec.min_calls} calls for {spec.open_s:g} s, "
        f"{spec.probes} probes, on_open={spec.on_open}"
    )
    if spec.slow_after_s is not None:
        settings += f", slow after {spec.slow_after_s:g} s"
    if spec.mode != "auto":
        settings = f"mode={spec.mode}"
    return Layer(CircuitBreaker, {"breakers": breakers}, settings)
