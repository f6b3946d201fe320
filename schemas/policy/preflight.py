"""`policy.preflight`: refuse what can't succeed before it waits or costs anything."""

from pydantic import Field

from engine.schemas.base import Spec


class PreflightSpec(Spec):
    """Checks against what is known of the target: its tasks, its context length, its rate limit."""

    enabled: bool = True
    max_chars_per_token: float = Field(12.0, gt=0)
    """A prompt is refused as too long only when it would be so with this many characters in each token."""
