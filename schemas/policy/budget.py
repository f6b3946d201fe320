"""`policy.budget`: how much trying again may cost, for a request and for a target."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class BudgetSpec(Spec):
    """A limit on the attempts of one request, and a token bucket that bounds the retries of a whole target."""

    enabled: bool = True
    max_attempts: int | None = Field(20, ge=1)
    """Attempts of one request over retries, fallbacks, hedges and rescues; null: no limit."""
    capacity: float = Field(500.0, gt=0)
    """Tokens of a target's bucket; it starts full."""
    failure_cost: float = Field(14.0, ge=0)
    """Tokens that another try after a failure takes; a success gives them back."""
    throttle_cost: float = Field(5.0, ge=0)
    """Tokens that another try after a throttle takes; a success gives them back."""
    success_refund: float = Field(1.0, ge=0)
    """Tokens that a request which needed no retry puts into the bucket."""
    refill_per_s: float = Field(10.0, ge=0)
    """Tokens that come back by themselves, a second."""
    on_empty: Literal["wait", "fail"] = "wait"
    """wait: a retry waits for its tokens (batch); fail: the request fails with its first error (interactive)."""
