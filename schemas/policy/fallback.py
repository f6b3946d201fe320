"""`policy.fallback`: when the next target is tried."""

from engine.schemas.base import Spec


class FallbackSpec(Spec):
    """Which failures of one target are worth another target."""

    on: tuple[str, ...] = (
        "throttled",
        "quota_exhausted",
        "auth",
        "too_long",
        "truncated",
        "malformed",
        "timeout",
        "connect",
        "server",
        "overloaded",
        "circuit_open",
        "queue_full",
        "internal",
    )
    """Words of the failure vocabulary; content_filtered is not routed around by default, and too_long goes only to
    a model with a larger context."""
