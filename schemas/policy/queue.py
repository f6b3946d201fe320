"""`policy.queue`: the only place where work waits."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class QueueSpec(Spec):
    """A bounded priority queue before each target."""

    enabled: bool = True
    size: int = Field(1000, ge=0)
    """Requests that may wait."""
    concurrency: int = Field(64, ge=1)
    """Requests that may be past the queue at once."""
    on_full: Literal["wait", "reject", "evict_lowest"] = "wait"
    """The rule for a full queue: it waits at the door; it fails with queue_full; or the one
    that would be served last fails with queue_full, which may be the newcomer."""
    ageing_s: float = Field(30.0, gt=0)
    """A request overtakes those of the next lower tier that came less than this much earlier, in seconds."""
