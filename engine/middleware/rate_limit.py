"""Requests and tokens a minute: a call takes all that it needs at once, in the order of arrival, or waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from engine.clock import Clock
from engine.errors import CircuitOpen, InferenceError, TooLong
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Context, Request, Result, Usage
from engine.resources import Resources
from engine.tokens import input_tokens, output_tokens
from schemas.policy import RateLimitSpec

UNITS = ("requests", "input_tokens", "output_tokens")
"""The dimensions of a cost, in the order of its vector."""


class VectorBucket:
    """A token bucket with several dimensions that are reserved together.

    Levels refill continuously and may fall below zero when a call turns out dearer than its reservation. Those who wait
    are served in the order of arrival: nobody small slips past somebody large. Lives on one event loop.
    """

    def __init__(self, rates_per_s: Sequence[float | None], burst_s: float, clock: Clock) -> None:
        """`rates_per_s` has a rate for each dimension, None for no limit. It starts full."""
        self.rates = tuple(rates_per_s)
        # A bucket smaller than one unit could never give one.
        self.capacity = tuple(None if rate is None else max(1.0, rate * burst_s) for rate in self.rates)
        self.levels = [float("inf") if capacity is None else capacity for capacity in self.capacity]
        self._clock = clock
        self._refilled = clock.monotonic()
        self._line: deque[tuple[Sequence[float], asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Those in line who still want their turn."""
        return sum(not turn.done() for _, turn in self._line)

    async def acquire(self, cost: Sequence[float]) -> None:
        """Takes `cost`, after those who came before. Raises TooLong for a cost that no full bucket holds."""
        for unit, amount, capacity in zip(UNITS, cost, self.capacity, strict=True):
            if capacity is not None and amount > capacity * (1 + 1e-9):
                raise TooLong(
                    f"the request needs {amount:.0f} {unit.replace('_', ' ')} at once, and policy.rate_limit lets "
                    f"{capacity:.0f} pass: raise {unit}_per_min or burst_s, or make the request smaller"
                )
        self._refill()
        if not self._line and self._wait_s(cost) <= 0:
            self._take(cost)
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append((cost, turn))
        self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(cost)  # its turn came in the instant of the cancellation
            else:
                self._serve()  # the next in line need not wait for this one's amount
            raise

    def give_back(self, cost: Sequence[float]) -> None:
        """Returns what was taken but not used; negative amounts take more."""
        self._refill()
        for place, capacity in enumerate(self.capacity):
            if capacity is not None:
                self.levels[place] = min(capacity, self.levels[place] + cost[place])
        self._serve()

    def _refill(self) -> None:
        now = self._clock.monotonic()
        passed, self._refilled = now - self._refilled, now
        for place, (rate, capacity) in enumerate(zip(self.rates, self.capacity, strict=True)):
            if rate is not None and capacity is not None:
                self.levels[place] = min(capacity, self.levels[place] + rate * passed)

    def _wait_s(self, cost: Sequence[float]) -> float:
        """Seconds until the levels reach `cost`; 0 or less: now."""
        waits = (
            (amount - level) / rate
            for amount, level, rate in zip(cost, self.levels, self.rates, strict=True)
            if rate is not None
        )
        return max(waits, default=0.0)

    def _take(self, cost: Sequence[float]) -> None:
        for place, rate in enumerate(self.rates):
            if rate is not None:
                self.levels[place] -= cost[place]

    def _serve(self) -> None:
        """Gives those at the head of the line their turn, as far as the levels reach."""
        self._refill()
        while self._line:
            cost, turn = self._line[0]
            if turn.done():
                self._line.popleft()
                continue
            # A billionth is what rounding may leave missing after exactly the time that was waited for.
            if self._wait_s(cost) > 1e-9:
                break
            self._line.popleft()
            self._take(cost)
            turn.set_result(None)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line:
            wait = max(0.0, self._wait_s(self._line[0][0]))
            self._timer = asyncio.get_running_loop().call_later(wait, self._serve)


class RateLimit(Middleware):
    """Reserves a call's requests and tokens, and puts the reservation right when the true usage is known."""

    name = "rate_limit"
    why = "before the permit and the call, so that nothing is held while it waits for tokens"
    wrapped_by = {
        "queue": "work waits in the queue; here only the head of it waits for its tokens",
        "route": "the limits are a key's, so the key must be chosen",
    }
    wraps = {"breaker": "a rejected call gives its tokens back"}

    def __init__(self, next: Stage, spec: RateLimitSpec, resources: Resources, target: str) -> None:
        self.next = next
        self.spec = spec
        self.resources = resources
        self.target = target

    async def __call__(self, request: Request, context: Context) -> Result:
        bucket = self._bucket(context)
        cost = self._cost(request)
        await bucket.acquire(cost)
        try:
            result = await self.next(request, context)
        except CircuitOpen:
            bucket.give_back(cost)  # nothing was sent
            raise
        except InferenceError as error:
            # A call that the provider refused cost a request; what else it counted is not known.
            bucket.give_back((0.0, cost[1], cost[2]) if error.status is not None else (0.0, 0.0, cost[2]))
            raise
        if result.stream is None:
            self._correct(bucket, cost, result.usage)
        else:
            attempt = context.attempt
            result.stream.on_settle(lambda _: self._correct(bucket, cost, attempt.usage if attempt else None))
        return result

    def _bucket(self, context: Context) -> VectorBucket:
        spec = self.spec
        attempt = context.attempt
        key = attempt.key if attempt is not None and spec.per == "key" else None
        rates = [
            None if rate is None else rate / 60
            for rate in (spec.requests_per_min, spec.input_tokens_per_min, spec.output_tokens_per_min)
        ]
        return self.resources.get(
            ("rate_limit", self.target, key), lambda: VectorBucket(rates, spec.burst_s, self.resources.clock)
        )

    def _cost(self, request: Request) -> tuple[float, float, float]:
        answer = output_tokens(request.task, request.body, self.spec.output_tokens_default)
        return 1.0, float(input_tokens(request.body)), float(answer)

    @staticmethod
    def _correct(bucket: VectorBucket, cost: tuple[float, float, float], usage: Usage | None) -> None:
        if usage is not None:
            bucket.give_back((0.0, cost[1] - usage.input_tokens, cost[2] - usage.output_tokens))


def layer(branch: Branch) -> Layer | None:
    spec = branch.policy.rate_limit
    limits = [spec.requests_per_min, spec.input_tokens_per_min, spec.output_tokens_per_min]
    if not spec.enabled or limits == [None, None, None]:
        return None
    shown = " ".join(f"{unit}={limit:g}/min" for unit, limit in zip(UNITS, limits, strict=True) if limit is not None)
    return Layer(
        RateLimit,
        {"spec": spec, "resources": branch.resources, "target": branch.name},
        f"{shown} burst={spec.burst_s:g} s per {spec.per}",
    )
