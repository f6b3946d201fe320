"""Stops calling what is down, and finds out with few calls when it is back."""

from __future__ import annotations

from collections import deque
from enum import Enum
from random import Random

from engine.clock import Clock
from engine.errors import CircuitOpen, InferenceError
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Context, Request, Result
from schemas.policy import BreakerSpec


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The circuit of one endpoint and model.

    A permit is the generation in which it was given; a result from an earlier generation changes nothing. Transitions
    are lazy: there are no timers. Times are in seconds of the monotonic clock.
    """

    def __init__(self, name: str, spec: BreakerSpec, clock: Clock, rng: Random) -> None:
        self.name = name
        self.spec = spec
        self.clock = clock
        self.rng = rng
        self.state = State.CLOSED
        self.generation = 0
        self.trips = 0
        self._window: deque[bool] = deque(maxlen=spec.window)
        self._failures = 0
        self._opened_in_a_row = 0
        self._open_until = 0.0
        self._hint_until = 0.0
        self._probing = 0
        self._probe_successes = 0
        self._probe_failures = 0

    def try_acquire(self) -> int:
        """A permit, to be settled exactly once. Raises CircuitOpen, with the time until the next chance."""
        if self.state is State.CLOSED:
            return self.generation
        now = self.clock.monotonic()
        if self.state is State.OPEN:
            if now < self._open_until:
                raise self._rejection(self._open_until - now)
            self._enter(State.HALF_OPEN)
        if self._probing >= self.spec.probes:
            raise self._rejection(min(1.0, self.spec.open_s / 5))
        self._probing += 1
        return self.generation

    def settle(self, permit: int, failed: bool | None, retry_after_s: float | None = None) -> None:
        """`failed` None: the call says nothing about the endpoint (cancelled, throttled, the caller's mistake)."""
        if permit != self.generation:
            return
        if retry_after_s is not None:
            self._hint_until = max(self._hint_until, self.clock.monotonic() + retry_after_s)
        if self.state is State.HALF_OPEN:
            self._settle_probe(failed)
        elif failed is not None:
            self._record(failed)

    def _settle_probe(self, failed: bool | None) -> None:
        self._probing -= 1
        if failed is None:
            return
        majority = self.spec.probes // 2 + 1
        if failed:
            self._probe_failures += 1
            if self._probe_failures > self.spec.probes - majority:
                self._open()
        else:
            self._probe_successes += 1
            if self._probe_successes >= majority:
                self._opened_in_a_row = 0
                self._enter(State.CLOSED)

    def _record(self, failed: bool) -> None:
        window = self._window
        if len(window) == window.maxlen:
            self._failures -= window[0]
        window.append(failed)
        self._failures += failed
        enough = len(window) >= self.spec.min_calls
        if failed and enough and self._failures >= self.spec.failure_threshold * len(window):
            self._open()

    def _open(self) -> None:
        self._opened_in_a_row += 1
        self.trips += 1
        now = self.clock.monotonic()
        pause = min(self.spec.max_open_s, self.spec.open_s * 2 ** (self._opened_in_a_row - 1))
        # Jitter only lengthens: several processes must not probe in the same instant.
        self._open_until = max(now + pause * self.rng.uniform(1.0, 1.1), self._hint_until)
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self._window.clear()
        self._failures = self._probing = self._probe_successes = self._probe_failures = 0

    def _rejection(self, wait_s: float) -> CircuitOpen:
        rejection = CircuitOpen(
            f"the circuit of {self.name} is {self.state.value.replace('_', ' ')}; next chance in {wait_s:.1f} s",
            retry_after_s=wait_s,
        )
        rejection.probing = self.state is State.HALF_OPEN
        return rejection


class CircuitBreaker(Middleware):
    """Asks for a permit, never waits for one, and settles it when the attempt or its stream has ended."""

    name = "breaker"
    why = "the last gate before the call: a permit taken before a wait goes stale"
    wraps = {"timeout": "the breaker must see timeouts"}

    def __init__(self, next: Stage, breaker: Breaker) -> None:
        self.next = next
        self.breaker = breaker

    async def __call__(self, request: Request, context: Context) -> Result:
        breaker = self.breaker
        permit = breaker.try_acquire()
        try:
            result = await self.next(request, context)
        except InferenceError as error:
            breaker.settle(permit, verdict(error), error.retry_after_s)
            raise
        except BaseException:
            breaker.settle(permit, None)
            raise
        if result.stream is None:
            breaker.settle(permit, False)
        else:
            result.stream.on_settle(lambda error: breaker.settle(permit, verdict(error)))
        return result


def verdict(error: InferenceError | None) -> bool | None:
    """True: a failure of the endpoint; False: a success; None: says nothing about it."""
    if error is None:
        return False
    return True if error.counts_for_breaker else None


def layer(branch: Branch) -> Layer | None:
    spec = branch.policy.breaker
    if not spec.enabled or branch.target.provider.kind == "local":
        return None
    provider = branch.target.provider
    endpoint = provider.base_url if provider.kind == "remote" else branch.name
    breaker = branch.resources.get(
        ("breaker", endpoint, branch.target.model_id),
        lambda: Breaker(branch.name, spec, branch.resources.clock, branch.resources.rng),
    )
    settings = (
        f"opens at {spec.failure_threshold:.0%} of ≥{spec.min_calls} calls for {spec.open_s:g} s, "
        f"{spec.probes} probes, on_open={spec.on_open}"
    )
    return Layer(CircuitBreaker, {"breaker": breaker}, settings)
