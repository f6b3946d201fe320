"""`policy.concurrency`: find out how much a provider takes at once."""

from pydantic import Field

from engine.schemas.base import Spec


class ConcurrencySpec(Spec):
    """An adaptive limit on calls in flight, below the queue's fixed one."""

    enabled: bool = False
    initial: int = Field(8, ge=1)
    """Calls in flight at the start; doubles from round to round until the provider says no."""
    minimum: int = Field(1, ge=1)
    """Never fewer."""
    maximum: int = Field(1000, ge=1)
    """Never more; the queue's concurrency bounds it as well."""
    backoff: float = Field(0.7, gt=0, lt=1)
    """The share of the limit that is left after a refusal, once for all calls that were then in flight."""
    freeze_s: float = Field(2.0, ge=0)
    """Time without growth after a failure or a timeout, in seconds, while failures are frequent."""
    freeze_share: float = Field(0.25, ge=0, le=1)
    """Share of recent calls that failed, refusals aside, from which a failure pauses growth; 0: every failure does."""
    latency_tolerance: float | None = Field(None, gt=1)
    """For self-hosted engines: latency (of a stream: to the first token; else for each token) above this multiple of
    the best seen means too many in flight; null: only refusals do."""
