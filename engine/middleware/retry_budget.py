"""The cost of retries: a token bucket for each target. Used by the stages that retry."""

from __future__ import annotations

from engine.core.clock import Clock
from engine.core.errors import InferenceError
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import BudgetSpec

THROTTLES = frozenset({"throttled", "overloaded"})
"""Failures of a provider that is overloaded or limits the rate; they are counted and paid for separately."""


class RetryBudget:
    """Bounds the retries of a target, so that retries do not worsen an outage.

    Source: AWS SDKs and Tools Reference Guide, "Retry behavior": capacity 500, 14 for a transient failure, 5 for a
    throttle, given back by success. Ours also refills slowly, so that a job that only waits continues eventually.
    """

    def __init__(self, spec: BudgetSpec, clock: Clock) -> None:
        self.spec = spec
        self.level = spec.capacity
        self.refused = 0
        self._clock = clock
        self._refilled = clock.monotonic()

    def cost(self, error: InferenceError) -> float:
        """Returns the tokens that another try after `error` costs."""
        return self.spec.throttle_cost if error.kind in THROTTLES else self.spec.failure_cost

    def try_take(self, cost: float) -> bool:
        """Takes `cost` if the bucket has it."""
        self._refill()
        if self.level < cost:
            self.refused += 1
            return False
        self.level -= cost
        return True

    def reserve(self, cost: float) -> float | None:
        """Takes `cost`, also below zero, and returns the seconds until the bucket has refilled it.

        None: it never will, or `on_empty` is fail and the bucket lacks the tokens.
        """
        if self.try_take(cost):
            return 0.0
        if self.spec.on_empty == "fail" or not self.spec.refill_per_s:
            return None
        self.level -= cost
        return -self.level / self.spec.refill_per_s

    def give_back(self, tokens: float) -> None:
        """Returns tokens to the bucket: after a success, those of its retries; without retries, `success_refund`."""
        level = self.level + tokens
        self.level = level if level < self.spec.capacity else self.spec.capacity

    def gauges(self) -> dict[str, float]:
        self._refill()
        return {"retry_budget_tokens": self.level, "retry_budget_refused": self.refused}

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self.give_back((now - self._refilled) * self.spec.refill_per_s)
        self._refilled = now


def budget_of(context: LayerContext) -> RetryBudget | None:
    """Returns the target's bucket; None when the policy is off."""
    spec = context.policy.budget
    if not spec.enabled:
        return None
    return context.resources.get(("budget", context.name), lambda: RetryBudget(spec, context.resources.clock))
