"""`policy.timeout`: limits of one attempt."""

from pydantic import Field

from engine.schemas.base import Spec


class TimeoutSpec(Spec):
    """Limits of one attempt, in seconds; null: none."""

    enabled: bool = True
    attempt_s: float | None = Field(600.0, gt=0)
    """A whole call without streaming."""
    first_token_s: float | None = Field(60.0, gt=0)
    """Streaming: from the call to the first chunk."""
    idle_s: float | None = Field(30.0, gt=0)
    """Streaming: between two chunks."""
