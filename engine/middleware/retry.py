"""Retries, at this one layer only: transports and clients retry nothing."""

from __future__ import annotations

import asyncio
from random import Random

from engine.core.clock import Clock
from engine.core.errors import CircuitOpen, InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.layer_context import LayerContext
from engine.middleware.retry_budget import THROTTLES, RetryBudget, budget_of
from engine.schemas.policy import RetrySpec


class Tries:
    """The tries of a request at one target. Kept in its context: it may come back after an open circuit."""

    __slots__ = ("failures", "first", "paid", "throttles")

    def __init__(self, first: InferenceError) -> None:
        self.first = first
        self.failures = 0
        self.throttles = 0
        self.paid = 0.0
        """Budget tokens for the tries."""

    @property
    def made(self) -> int:
        return self.failures + self.throttles

    def count(self, error: InferenceError) -> None:
        if error.kind in THROTTLES:
            self.throttles += 1
        else:
            self.failures += 1

    def caused(self, error: InferenceError) -> InferenceError:
        """Returns `error`, with the first one as its cause."""
        if error is not self.first and error.__cause__ is None:
            error.__cause__ = self.first
        return error


class Retry(Middleware):
    """Full jitter under a capped exponential bound, never shorter than the server's hint.

    Exponential back-off and full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter". Failures and
    throttles have separate limits. A hint that passes the deadline, or `park_after_s`, fails the request at once. A
    stream is retried until its first chunk.
    """

    name = "retry"
    why = "outside the queue, so that a request holds nothing while it waits for its next try"
    wraps = {
        "queue": "a retry that waits must not hold a slot of the queue",
        "breaker": "each attempt must pass the breaker again",
        "timeout": "the limit of an attempt begins with the attempt",
    }

    def __init__(
        self,
        next: Stage,
        target: str,
        spec: RetrySpec,
        clock: Clock,
        rng: Random,
        budget: RetryBudget | None,
        park_after_s: float,
    ) -> None:
        self.next = next
        self.target = target
        self.spec = spec
        self.clock = clock
        self.rng = rng
        self.budget = budget
        self.park_after_s = park_after_s
        self.max_failures = spec.max_retries
        throttles = spec.max_throttle_retries
        self.max_throttles = spec.max_retries if throttles is None else throttles

    async def __call__(self, request: Request, context: Context) -> Result:
        context.last_try = self.max_failures == 0
        try:
            result = await self.next(request, context)
            if result.stream is not None:
                await result.stream.prime()
        except InferenceError as error:
            return await self._again(request, context, error)
        self._succeeded(context)
        return result

    async def _again(self, request: Request, context: Context, error: InferenceError) -> Result:
        """Makes the tries after the first one. Raises the last error, with the first as its cause."""
        tries = context.tries.setdefault(self.target, Tries(error))
        while True:
            if isinstance(error, CircuitOpen):
                raise tries.caused(error)  # nothing was tried; the stage that chooses the target knows the alternatives
            tries.count(error)
            cost = self.budget.cost(error) if self.budget is not None else 0.0
            delay = self._wait_s(context, error, tries, cost)
            if delay is None:
                raise tries.caused(error)
            hinted = error.retry_after_s and not error.elsewhere
            hint = f", the server's hint is {error.retry_after_s:g} s" if hinted else ""
            context.next_attempt("retry", f"try {tries.made + 1} after {error.kind}: {delay:.3g} s{hint}")
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                if self.budget is not None:
                    self.budget.give_back(cost)  # no other try was made
                raise
            tries.paid += cost
            context.last_try = tries.failures >= self.max_failures
            try:
                result = await self.next(request, context)
                if result.stream is not None:
                    await result.stream.prime()
            except InferenceError as another:
                error = another
                continue
            self._succeeded(context)
            return result

    def _succeeded(self, context: Context) -> None:
        """Gives back the tokens of the tries, and clears them: a stream that breaks later may come here again."""
        tries: Tries | None = context.tries.pop(self.target, None) if context.tries else None
        if self.budget is not None:
            self.budget.give_back(self.budget.spec.success_refund if tries is None else tries.paid)

    def _wait_s(self, context: Context, error: InferenceError, tries: Tries, cost: float) -> float | None:
        """Returns the seconds until the next try, whose `cost` is then taken; None if there is no next try."""
        throttled = error.kind in THROTTLES
        if not error.retryable or tries.failures > self.max_failures or tries.throttles > self.max_throttles:
            return None
        if context.spent:
            return None
        # The hint concerns the key and endpoint that gave it.
        hint = None if error.elsewhere else error.retry_after_s
        if hint is not None and hint > self.park_after_s:
            return None
        delay = self.delay(tries.throttles if throttled else tries.failures, hint)
        if self.budget is not None:
            wait = self.budget.reserve(cost)
            if wait is None:
                return None
            delay = max(delay, wait)
        if context.deadline is not None and self.clock.monotonic() + delay >= context.deadline:
            if self.budget is not None:
                self.budget.give_back(cost)
            return None
        return delay

    def delay(self, retry: int, hint_s: float | None) -> float:
        """Returns the seconds before the `retry`-th retry, counted from 1."""
        growth = self.spec.multiplier ** min(retry - 1, 64)
        bound = min(self.spec.max_delay_s, self.spec.initial_delay_s * growth)
        jittered = self.rng.uniform(0.0, bound)
        if hint_s is None:
            return jittered
        # Many requests with the same hint must not return in the same instant.
        return max(jittered, hint_s + self.rng.uniform(0.0, min(bound, 0.1 * hint_s + 0.01)))


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.retry
    if not spec.enabled or context.policy.hedge.enabled:
        return None  # hedging replaces retries
    budget = budget_of(context)
    throttles = "" if spec.max_throttle_retries is None else f" throttles={spec.max_throttle_retries}"
    settings = (
        f"max_retries={spec.max_retries}{throttles} "
        f"delay={spec.initial_delay_s:g} s ×{spec.multiplier:g} ≤{spec.max_delay_s:g} s"
    )
    if budget is not None:
        settings += f" budget={budget.spec.capacity:g}, empty: {budget.spec.on_empty}"
    return Layer(
        Retry,
        {
            "target": context.name,
            "spec": spec,
            "clock": context.resources.clock,
            "rng": context.resources.rng,
            "budget": budget,
            "park_after_s": context.policy.route.park_after_s,
        },
        settings,
    )
