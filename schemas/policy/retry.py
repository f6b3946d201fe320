"""`policy.retry`: another try for failures that may pass."""

from pydantic import Field

from engine.schemas.base import Spec


class RetrySpec(Spec):
    """Full jitter under a cap, never shorter than the server's hint."""

    enabled: bool = True
    max_retries: int = Field(5, ge=0)
    """Tries after the first one, for failures."""
    max_throttle_retries: int | None = Field(None, ge=0)
    """Tries after the first one, for throttled and overloaded; counted apart from failures. null: as max_retries."""
    initial_delay_s: float = Field(1.0, ge=0)
    """Upper bound of the first wait, in seconds."""
    multiplier: float = Field(2.0, ge=1)
    """Growth of the bound from one wait to the next."""
    max_delay_s: float = Field(16.0, ge=0)
    """Cap of the bound, in seconds; a server's hint may be longer."""
