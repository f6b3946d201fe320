"""`policy.route`: which endpoint and which key an attempt uses."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class RouteSpec(Spec):
    """Choice of the key and of the endpoint, and what happens to a key that is refused."""

    keys: Literal["round_robin", "least_loaded", "weighted", "specific"] = "round_robin"
    """round_robin: in turn; least_loaded: the one with the fewest calls in flight; weighted: in proportion to
    `weights`; specific: only `key`."""
    weights: dict[str, float] = {}
    """For weighted: a key's name and its share; a key that is not named has 1."""
    key: str | None = None
    """For specific: the key's name, such as OPENAI_API_KEY_2."""
    key_concurrency: int | None = Field(None, ge=1)
    """Calls that one key may have in flight; null: no limit."""
    endpoints: Literal["round_robin", "least_loaded"] = "least_loaded"
    """Of a provider with several endpoints: in turn, or the one with the fewest calls in flight."""
    cool_s: float = Field(1.0, ge=0)
    """Time that a throttled key is avoided without a hint of the provider, in seconds; doubles while it continues."""
    park_after_s: float = Field(60.0, gt=0)
    """A hint longer than this, in seconds, ends the retries at this target: the next target is tried."""
    on_parked: Literal["wait", "fail"] = "wait"
    """The rule if every key cools: wait for the first to come back (batch), or fail with throttled (interactive)."""
