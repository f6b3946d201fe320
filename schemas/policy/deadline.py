"""`policy.deadline`: one limit over all attempts of a request."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class DeadlineSpec(Spec):
    """One deadline a request."""

    enabled: bool = True
    total_s: float | None = Field(None, gt=0)
    """Time for a request over all its attempts, in seconds; null: only the request's own deadline."""
    starts: Literal["submit", "first_attempt"] = "first_attempt"
    """submit: waiting in the queue counts (interactive); first_attempt: it does not (batch)."""
