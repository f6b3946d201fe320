"""`policy.cache`: answer an equal request without a call."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class CacheSpec(Spec):
    """Answers of this engine, kept in memory. Streams pass it by."""

    enabled: bool = False
    only: Literal["deterministic", "all"] = "deterministic"
    """deterministic: requests with temperature 0 or a seed, and embeddings; all: others too, whose equal requests then
    all get the same answer."""
    max_entries: int = Field(10_000, ge=1)
    """Answers kept; the one that was not used for the longest time goes first."""
    max_bytes: int = Field(256 * 1024 * 1024, ge=1)
    """Memory for the answers, in bytes."""
    ttl_s: float | None = Field(3600.0, gt=0)
    """Lifetime of an answer in seconds; null: as long as the engine lives."""
    single_flight: bool = True
    """Equal requests in flight at the same time share one call."""
