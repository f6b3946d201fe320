"""Requests and tokens a minute: a call takes all that it needs at once, in the order of arrival, or waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from engine.core.clock import Clock
from engine.core.errors import CircuitOpen, InferenceError, TooLong
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, RateHints, Request, Result
from engine.core.resources import Resources
from engine.core.token_estimate import input_tokens, output_tokens
from engine.core.usage import Usage
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import RateLimitSpec

UNITS = ("requests", "tokens", "input_tokens", "output_tokens")
"""The dimensions of a cost, in the order of its vector; `tokens` are those of prompt and answer together."""
Cost = tuple[float, float, float, float]
LEARN_EVERY_S = 0.05
"""The shortest time between two readings of a success's headers: reading costs more than sending a request."""
_NEVER = float("inf")


class _Unit:
    """One dimension: the configured limit, the provider's limit, and the level."""

    __slots__ = ("capacity", "level", "limit", "name", "rate")

    def __init__(self, name: str, rate_per_s: float | None, burst_s: float) -> None:
        self.name = name
        self.limit = rate_per_s
        """Configured, units a second; None: no limit."""
        self.rate = _NEVER if rate_per_s is None else rate_per_s
        # A bucket smaller than one unit could never give one.
        self.capacity = _NEVER if rate_per_s is None else max(1.0, rate_per_s * burst_s)
        self.level = self.capacity

    def learn(self, limit: float, remaining: float, reset_s: float) -> None:
        """Adopts the limit in a reply's headers if it is lower.

        The limit comes back evenly: `limit - remaining` units in `reset_s` seconds (OpenAI, "Rate limits", headers).
        """
        if reset_s <= 0 or limit <= 0 or remaining >= limit:
            return
        rate = (limit - remaining) / reset_s
        self.rate = rate if self.limit is None else min(rate, self.limit)
        self.capacity = limit if self.limit is None else min(self.capacity, limit)
        self.level = min(self.level, remaining)


class VectorBucket:
    """A token bucket with several dimensions that are reserved together.

    Levels refill continuously and may fall below zero when a call costs more than its reservation. Waiting calls are
    served in the order of arrival: a small request never passes a large one. Lives on one event loop.
    """

    def __init__(self, rates_per_s: Sequence[float | None], burst_s: float, clock: Clock) -> None:
        """`rates_per_s` has a rate for each dimension, None for no limit. It starts full."""
        self.units = [_Unit(name, rate, burst_s) for name, rate in zip(UNITS, rates_per_s, strict=True)]
        self._limited = self._find_limited()
        self.learn_at = float("-inf")
        """The time from which a success's headers are worth reading again."""
        self._clock = clock
        self._refilled = clock.monotonic()
        self._line: deque[tuple[Cost, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limited(self) -> bool:
        """False while no limit is known: nothing waits or counts then."""
        return bool(self._limited)

    def _find_limited(self) -> tuple[tuple[int, _Unit], ...]:
        """Returns the dimensions that have a limit, with their index in a cost."""
        return tuple((place, unit) for place, unit in enumerate(self.units) if unit.rate != _NEVER)

    @property
    def waiting(self) -> int:
        """Returns the waiting calls that are not cancelled."""
        return sum(not turn.done() for _, turn in self._line)

    @property
    def levels(self) -> list[float]:
        """Returns the level of each dimension."""
        return [unit.level for unit in self.units]

    async def acquire(self, cost: Cost) -> None:
        """Takes `cost`, after earlier callers. Raises TooLong for a cost that no full bucket holds."""
        if self.try_acquire(cost):
            return
        self.refuse_impossible(cost)
        turn = asyncio.get_running_loop().create_future()
        self._line.append((cost, turn))
        self._schedule()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(cost)  # its turn came in the instant of the cancellation
            else:
                self._serve()  # the next in line need not wait for this call's amount
            raise

    def try_acquire(self, cost: Cost) -> bool:
        """Takes `cost` if the levels reach it and no request waits. A cost within the levels is never impossible."""
        if self._line:
            return False
        self._refill()
        limited = self._limited
        for place, unit in limited:
            if cost[place] > unit.level:
                return False
        for place, unit in limited:
            unit.level -= cost[place]
        return True

    def refuse_impossible(self, cost: Cost) -> None:
        """Raises TooLong for a cost that no full bucket holds: waiting would never end."""
        for place, unit in self._limited:
            amount = cost[place]
            if amount > unit.capacity * (1 + 1e-9):
                raise TooLong(
                    f"the request needs {amount:.0f} {unit.name.replace('_', ' ')} at once, and policy.rate_limit lets "
                    f"{unit.capacity:.0f} pass: raise {unit.name}_per_min or burst_s, or make the request smaller"
                )

    def give_back(self, cost: Cost) -> None:
        """Returns an amount that was taken but not used; negative amounts take more."""
        self._refill()
        for place, unit in self._limited:
            level = unit.level + cost[place]
            unit.level = level if level < unit.capacity else unit.capacity
        if self._line:
            self._serve()

    def learn(self, hints: RateHints) -> None:
        """Adopts the limits in a reply's headers."""
        self._refill()
        for unit, said in zip(
            self.units, (hints.requests, hints.tokens, hints.input_tokens, hints.output_tokens), strict=True
        ):
            if said is not None:
                unit.learn(*said)
        self._limited = self._find_limited()
        for cost, turn in self._line:
            if not turn.done():
                try:
                    self.refuse_impossible(cost)
                except TooLong as error:
                    turn.set_exception(error)  # it would wait forever, and so would all behind it
        if self._line:
            self._serve()

    def wait_s(self, cost: Cost) -> float:
        """Returns the seconds that a call of this cost would wait now."""
        self._refill()
        before = [waiting for waiting, turn in self._line if not turn.done()]
        return max(0.0, self._wait_s([sum(parts) for parts in zip(cost, *before, strict=True)]))

    def holding(self) -> str | None:
        """Names the limit that calls wait for, with the time to the next one's turn; None if no call waits."""
        waiting = [cost for cost, turn in self._line if not turn.done()]
        if not waiting:
            return None
        self._refill()
        left_s, name = max(((waiting[0][place] - unit.level) / unit.rate, unit.name) for place, unit in self._limited)
        return f"policy.rate_limit: {len(waiting)} calls wait for {name}, the next one for {max(0.0, left_s):.1f} s"

    def gauges(self) -> dict[str, float]:
        self._refill()
        levels = {f"rate_limit_{unit.name}_left": unit.level for unit in self.units if unit.rate != _NEVER}
        return {"rate_limit_waiting": self.waiting, **levels}

    def _refill(self) -> None:
        now = self._clock.monotonic()
        passed, self._refilled = now - self._refilled, now
        for _, unit in self._limited:
            level = unit.level + unit.rate * passed
            unit.level = level if level < unit.capacity else unit.capacity

    def _wait_s(self, cost: Sequence[float]) -> float:
        """Returns the seconds until the levels reach `cost`; 0 or less: now."""
        return max(((cost[place] - unit.level) / unit.rate for place, unit in self._limited), default=0.0)

    def _take(self, cost: Cost) -> None:
        for place, unit in self._limited:
            unit.level -= cost[place]

    def _serve(self) -> None:
        """Serves the calls at the head of the line, as far as the levels reach."""
        self._refill()
        while self._line:
            cost, turn = self._line[0]
            if turn.done():
                self._line.popleft()
                continue
            # Rounding may leave a billionth missing after exactly the time that was waited for.
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
    """Reserves a call's requests and tokens, and corrects the reservation when the true usage is known."""

    name = "rate_limit"
    why = "before the permit and the call, so that nothing is held while it waits for tokens"
    wrapped_by = {
        "queue": "work waits in the queue; only its head waits here for tokens",
        "route": "the limits are a key's, so the key must be chosen",
    }
    wraps = {"breaker": "a rejected call gives its tokens back"}

    def __init__(self, next: Stage, spec: RateLimitSpec, resources: Resources, target: str) -> None:
        self.next = next
        self.spec = spec
        self.resources = resources
        self.target = target
        self._buckets: dict[str | None, VectorBucket] = {}

    async def __call__(self, request: Request, context: Context) -> Result:
        bucket = self.bucket(context.attempt.key if context.attempt is not None else None)
        if not bucket.limited:
            return await self._unlimited(request, context, bucket)
        cost = context.cost or cost_of(request, self.spec)
        if not bucket.try_acquire(cost):
            await bucket.acquire(cost)
        try:
            result = await self.next(request, context)
        except CircuitOpen:
            bucket.give_back(cost)  # nothing was sent
            raise
        except InferenceError as error:
            self._learn(bucket, context, at_once=True)
            # A call that the provider refused cost a request; its other costs are unknown.
            bucket.give_back((0.0, *cost[1:]) if error.status is not None else (0.0, 0.0, 0.0, cost[3]))
            raise
        except BaseException:
            sent = context.attempt is not None and context.attempt.sent
            bucket.give_back((0.0, 0.0, 0.0, cost[3]) if sent else cost)
            raise
        self._learn(bucket, context)
        stream = result.stream
        if stream is None:
            _correct(bucket, cost, result.usage)
        else:
            stream.on_settle(lambda _: _correct(bucket, cost, stream.usage))
        return result

    def bucket(self, key: str | None) -> VectorBucket:
        """Returns the bucket of a key, or of the whole target."""
        if self.spec.per == "target":
            key = None
        bucket = self._buckets.get(key)
        if bucket is None:
            spec, clock = self.spec, self.resources.clock
            rates = [None if rate is None else rate / 60 for rate in limits_of(spec)]
            bucket = self._buckets[key] = self.resources.get(
                ("rate_limit", self.target, key), lambda: VectorBucket(rates, spec.burst_s, clock)
            )
        return bucket

    async def _unlimited(self, request: Request, context: Context, bucket: VectorBucket) -> Result:
        """Makes a call while no limit is known; the reply may name one."""
        try:
            result = await self.next(request, context)
        except InferenceError:
            self._learn(bucket, context, at_once=True)
            raise
        self._learn(bucket, context)
        return result

    def _learn(self, bucket: VectorBucket, context: Context, *, at_once: bool = False) -> None:
        attempt = context.attempt
        if attempt is None or attempt.hints is None or not self.spec.learn:
            return
        now = self.resources.clock.monotonic()
        if at_once or now >= bucket.learn_at:
            bucket.learn_at = now + LEARN_EVERY_S
            hints = attempt.hints()
            if hints is not None:
                bucket.learn(hints)


def limits_of(spec: RateLimitSpec) -> tuple[float | None, float | None, float | None, float | None]:
    """Returns the configured limits a minute, in the order of UNITS."""
    return spec.requests_per_min, spec.tokens_per_min, spec.input_tokens_per_min, spec.output_tokens_per_min


def cost_of(request: Request, spec: RateLimitSpec, characters: float | None = None) -> Cost:
    """Estimates the cost of a call before it is made; `characters` of its prompt, if they were counted."""
    prompt = float(input_tokens(request.body, characters))
    answer = float(output_tokens(request.task, request.body, spec.output_tokens_default))
    return 1.0, prompt + answer, prompt, answer


def _correct(bucket: VectorBucket, cost: Cost, usage: Usage | None) -> None:
    """Corrects a reservation by the true usage."""
    if usage is not None:
        prompt, answer = usage.input_tokens, usage.output_tokens
        bucket.give_back((0.0, cost[1] - prompt - answer, cost[2] - prompt, cost[3] - answer))


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.rate_limit
    limits = limits_of(spec)
    learns = spec.learn and context.target.provider.kind != "local"
    if not spec.enabled or (not learns and not any(limits)):
        return None
    shown = [f"{unit}={limit:g}/min" for unit, limit in zip(UNITS, limits, strict=True) if limit is not None]
    if shown:
        shown.append(f"burst={spec.burst_s:g} s per {spec.per}")
    if learns:
        shown.append("learns from headers")
    return Layer(RateLimit, {"spec": spec, "resources": context.resources, "target": context.name}, " ".join(shown))
