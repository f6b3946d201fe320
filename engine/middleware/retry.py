"""Another try, at this one layer only: transports and clients retry nothing."""

from __future__ import annotations

import asyncio
from random import Random

from engine.clock import Clock
from engine.errors import CircuitOpen, InferenceError
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Context, Request, Result
from schemas.policy import RetrySpec


class Retry(Middleware):
    """Full jitter under a capped exponential bound, never shorter than the server's hint.

    Exponential back-off and full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter". A hint that passes
    the deadline fails the request now. A stream is retried until its first chunk.
    """

    name = "retry"
    why = "outside the queue, so that a request holds nothing while it waits for its next try"
    wraps = {
        "queue": "a retry that waits must not hold a slot of the queue",
        "breaker": "each attempt must ask the breaker again",
        "timeout": "the limit of an attempt begins with the attempt",
    }

    def __init__(self, next: Stage, spec: RetrySpec, clock: Clock, rng: Random, wait_for_circuit: bool) -> None:
        """`wait_for_circuit`: sleep until an open circuit may close, instead of failing; costs no try."""
        self.next = next
        self.max_retries = spec.max_retries if spec.enabled else 0
        self.spec = spec
        self.clock = clock
        self.rng = rng
        self.wait_for_circuit = wait_for_circuit

    async def __call__(self, request: Request, context: Context) -> Result:
        tries = waits = 0
        while True:
            try:
                result = await self.next(request, context)
                if result.stream is not None:
                    await result.stream.prime()
                return result
            except CircuitOpen as error:
                # While probes are under way nobody knows better yet: only an opening counts.
                waits += not error.probing
                if not self.wait_for_circuit or waits > max(1, self.max_retries):
                    raise
                delay = error.retry_after_s or 0.0
                failure: InferenceError = error
            except InferenceError as error:
                tries += 1
                if not error.retryable or tries > self.max_retries:
                    raise
                delay = self.delay(tries, error.retry_after_s)
                failure = error
            if context.deadline is not None and self.clock.monotonic() + delay >= context.deadline:
                raise failure
            await asyncio.sleep(delay)

    def delay(self, retry: int, hint_s: float | None) -> float:
        """Seconds before the `retry`-th retry, counted from 1."""
        bound = min(self.spec.max_delay_s, self.spec.initial_delay_s * self.spec.multiplier ** (retry - 1))
        jittered = self.rng.uniform(0.0, bound)
        if hint_s is None:
            return jittered
        # Many that got the same hint must not come back in the same instant.
        return max(jittered, hint_s + self.rng.uniform(0.0, min(bound, 0.1 * hint_s + 0.01)))


def layer(branch: Branch) -> Layer | None:
    spec, breaker = branch.policy.retry, branch.policy.breaker
    waits = breaker.enabled and breaker.on_open == "wait" and branch.last
    if not spec.enabled and not waits:
        return None
    settings = (
        f"max_retries={spec.max_retries} delay={spec.initial_delay_s:g} s ×{spec.multiplier:g} ≤{spec.max_delay_s:g} s"
    )
    if not spec.enabled:
        settings = "only waits for an open circuit"
    return Layer(
        Retry,
        {
            "spec": spec,
            "clock": branch.resources.clock,
            "rng": branch.resources.rng,
            "wait_for_circuit": waits,
        },
        settings,
    )
