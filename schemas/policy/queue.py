"""`policy.queue`: the only place where work waits."""

from typing import Literal

from pydantic import Field

from schemas.base import Spec


class QueueSpec(Spec):
    """A bounded priority queue before each target."""

    enabled: bool = True
    size: int = Field(1000, ge=0)
    """Requests that may wait."""
    concurrency: int = Field(64, ge=1)
    """Requests that may be past the queue at once."""
    on_full: Literal["wait", "reject"] = "wait"
    """What happens to a request that finds the queue full: wait at the door, or fail with queue_full."""
    ageing_s: float = Field(30.0, gt=0)
    """A request overtakes those of the next lower tier that came less than this much earlier, in seconds."""
