"""`policy.hedge`: a second call for a request whose first one is slow."""

from pydantic import Field

from engine.schemas.base import Spec


class HedgeSpec(Spec):
    """Takes the position of retry: the first success counts, the others are cancelled."""

    enabled: bool = False
    after_s: float = Field(2.0, gt=0)
    """Time that a call (of a stream: its first chunk) may take before the next one starts, in seconds."""
    percentile: float | None = Field(0.95, gt=0, lt=1)
    """Once `min_samples` calls have succeeded, their latency at this share replaces after_s; null: never."""
    min_samples: int = Field(50, ge=1)
    """Calls that must have succeeded before the percentile counts."""
    max_hedges: int = Field(1, ge=1)
    """Further calls at most; a call that fails in a way that may pass starts the next one at once."""
