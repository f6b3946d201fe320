"""`policy.batch`: many requests in one call."""

from pydantic import Field

from schemas.base import Spec


class BatchSpec(Spec):
    """Combines compatible embedding requests into one call; a failed call is split until the bad row is alone."""

    enabled: bool = True
    max_size: int = Field(32, ge=1)
    """Requests in one call."""
    max_wait_s: float = Field(0.005, ge=0)
    """How long the first request of a batch waits for company, in seconds."""
    max_calls: int = Field(2, ge=1)
    """Batches in flight at once for each kind of request; what arrives meanwhile is combined."""
