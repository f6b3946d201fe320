"""Prices of a provider's models: the lists of conf/prices, and one price of one's own.

All in US dollars. Prices of tokens are for a million of them.
"""

import datetime
from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class TokenPricesSpec(Spec):
    """US dollars for a million tokens. A kind without a price of its own costs what the kind around it costs."""

    input: float | None = Field(None, ge=0)
    """Of the prompt; null: not sold by tokens, or not known."""
    output: float | None = Field(None, ge=0)
    """Of the answer, its reasoning included."""
    cached_input: float | None = Field(None, ge=0)
    """Prompt tokens that came from the provider's cache; null: as input."""
    cache_write: float | None = Field(None, ge=0)
    """Prompt tokens that were put into its cache; null: as input."""
    cache_write_1h: float | None = Field(None, ge=0)
    """Those that stay there for an hour; null: as cache_write."""
    audio_input: float | None = Field(None, ge=0)
    """Prompt tokens of audio; null: as input."""
    audio_output: float | None = Field(None, ge=0)
    """Answer tokens of audio; null: as output."""
    image_input: float | None = Field(None, ge=0)
    """Prompt tokens of images; null: as input."""
    image_output: float | None = Field(None, ge=0)
    """Answer tokens of images; null: as output."""


class PriceTierSpec(TokenPricesSpec):
    """The prices of every token of a request whose prompt is long."""

    above_tokens: int = Field(ge=1)
    """They hold when the prompt has more tokens than this."""


class PriceSpec(TokenPricesSpec):
    """The price of one model."""

    tiers: tuple[PriceTierSpec, ...] = ()
    """Prices for long prompts, the shortest first. A kind that a tier leaves out costs what the tier's input costs."""
    image: float | None = Field(None, ge=0)
    """For each image generated."""
    audio_hour: float | None = Field(None, ge=0)
    """For each hour of input audio."""
    audio_least_s: float = Field(0.0, ge=0)
    """A call is charged for at least so much audio, in seconds."""
    characters: float | None = Field(None, ge=0)
    """For a million characters of text that are spoken."""
    batch: float | None = Field(None, gt=0, le=1)
    """The share of these prices that a batch job costs; null: not known."""
    batch_cached: float | None = Field(None, gt=0, le=1)
    """The same of cached_input; null: as batch."""
    flex: float | None = Field(None, gt=0, le=1)
    """The same for a request with `service_tier: flex`; null: not known."""


class PriceListSpec(Spec):
    """A provider's list: a file of conf/prices, or one of your own."""

    date: datetime.date
    """The date on which the prices were read."""
    source: str
    """The page that publishes them."""
    currency: Literal["USD"] = "USD"
    models: dict[str, PriceSpec]
    """By the model's id at the provider. A model that is not here has no known price."""
