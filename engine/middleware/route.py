"""Chooses the key of an attempt and keeps the attempt's record."""

from __future__ import annotations

from engine.clock import Clock
from engine.errors import CircuitOpen, EngineError, InferenceError, Internal
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Attempt, ChunkStream, Context, Request, Result
from schemas.policy import RouteSpec


class KeyRing:
    """The keys of one target: who is next, how many calls each has in flight, which are parked and why."""

    def __init__(self, names: tuple[str, ...], spec: RouteSpec) -> None:
        self.names = names
        self.in_flight = dict.fromkeys(names, 0)
        self.parked: dict[str, InferenceError] = {}
        self._spec = spec
        self._turn = 0

    def choose(self, avoid: str | None) -> str | None:
        """A usable key, another one than `avoid` where there is one; None where no key is needed.

        Raises the error that parked the last usable key.
        """
        if not self.names:
            return None
        usable = [name for name in self.names if name not in self.parked]
        if not usable:
            raise next(reversed(self.parked.values()))
        if len(usable) > 1 and avoid in usable:
            usable.remove(avoid)
        if self._spec.keys == "least_loaded":
            chosen = min(usable, key=self.in_flight.__getitem__)
        else:
            chosen = usable[self._turn % len(usable)]
            self._turn += 1
        return chosen

    def park(self, name: str, error: InferenceError) -> bool:
        """Takes a key out of use until the engine is made anew; true if others are left."""
        self.parked[name] = error
        return len(self.parked) < len(self.names)


class Route(Middleware):
    """One record an attempt. A key that is refused or used up is parked, and another one goes on at once."""

    name = "route"
    why = "after the queue, so that the key is chosen when the call really goes out"
    wrapped_by = {"queue": "a key chosen before a wait may be parked when its turn comes"}
    wraps = {"breaker": "a rejected attempt comes back here for another key"}

    def __init__(self, next: Stage, target: str, ring: KeyRing, clock: Clock) -> None:
        self.next = next
        self.target = target
        self.ring = ring
        self.clock = clock

    async def __call__(self, request: Request, context: Context) -> Result:
        if context.on_first_attempt is not None:
            context.on_first_attempt()
        while True:
            key = self.ring.choose(context.last_key)
            attempt = Attempt(self.target, key)
            started = self.clock.monotonic()
            attempt.started_s = started - context.submitted_at
            context.record.attempts.append(attempt)
            context.attempt = attempt
            if key is not None:
                self.ring.in_flight[key] += 1
            try:
                result = await self.next(request, context)
            except CircuitOpen:
                context.record.attempts.pop()  # nothing was tried
                self._release(key)
                raise
            except InferenceError as error:
                self._finish(attempt, key, started, error)
                context.last_key = key
                if key is not None and error.parks_key and self.ring.park(key, error):
                    continue
                raise
            except (
                Exception
            ) as error:  # the boundary: a model that can't be loaded, or a defect, fails this target only
                what = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                failure = Internal(what)
                self._finish(attempt, key, started, failure)
                raise failure from error
            except BaseException:
                attempt.outcome = "cancelled"
                attempt.duration_s = self.clock.monotonic() - started
                self._release(key)
                raise
            if result.stream is None:
                attempt.usage = result.usage
                self._finish(attempt, key, started, None)
            else:
                self._follow(result.stream, attempt, key, started, context)
            return result

    def _follow(self, stream: ChunkStream, attempt: Attempt, key: str | None, started: float, context: Context) -> None:
        def first() -> None:
            attempt.first_token_s = self.clock.monotonic() - started

        def settled(error: InferenceError | None) -> None:
            self._finish(attempt, key, started, error)
            if error is not None:
                context.last_key = key
                if key is not None and error.parks_key:
                    self.ring.park(key, error)

        if stream.primed:
            first()
        else:
            stream.on_first(first)
        stream.on_settle(settled)

    def _finish(self, attempt: Attempt, key: str | None, started: float, error: InferenceError | None) -> None:
        attempt.duration_s = self.clock.monotonic() - started
        self._release(key)
        if error is None:
            attempt.outcome = "ok"
            return
        attempt.outcome = error.kind
        attempt.message = error.message
        attempt.status = error.status if error.status is not None else attempt.status
        attempt.provider_request_id = error.provider_request_id or attempt.provider_request_id

    def _release(self, key: str | None) -> None:
        if key is not None:
            self.ring.in_flight[key] -= 1


def layer(branch: Branch) -> Layer:
    spec = branch.policy.route
    target = branch.name
    ring = branch.resources.get(("keys", target), lambda: KeyRing(branch.keys, spec))
    count = len(branch.keys)
    settings = f"target={target}" + (f" keys={count} {spec.keys}" if count else "")
    return Layer(Route, {"target": target, "ring": ring, "clock": branch.resources.clock}, settings)
