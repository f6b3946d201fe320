"""`policy.rate_limit`: stay below what the provider allows."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class RateLimitSpec(Spec):
    """Requests and tokens a minute; a call takes all that it needs at once or waits in line."""

    enabled: bool = False
    requests_per_min: float | None = Field(None, gt=0)
    """Calls a minute; null: no limit."""
    tokens_per_min: float | None = Field(None, gt=0)
    """Prompt and answer tokens together a minute; null: no limit."""
    input_tokens_per_min: float | None = Field(None, gt=0)
    """Prompt tokens a minute, estimated before the call and put right after it; null: no limit."""
    output_tokens_per_min: float | None = Field(None, gt=0)
    """Answer tokens a minute, reserved by the request's own limit and put right after the call; null: no limit."""
    burst_s: float = Field(60.0, gt=0)
    """Burst, in seconds of the rate; a request that needs more at once is refused."""
    per: Literal["key", "target"] = "key"
    """The scope of the limits: each key, or all keys of the target together."""
    output_tokens_default: int = Field(256, ge=0)
    """Reserved for an answer whose request sets no limit, in tokens."""
    learn: bool = True
    """Also obey what the provider's x-ratelimit-* headers say of each key; they can lower a limit, never raise it."""
