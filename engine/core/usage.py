"""The usage of an attempt or request, with one meaning for every wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Usage:
    """The usage of one attempt or request. A count is of tokens unless it says otherwise.

    `input_tokens` is the whole prompt: tokens read from and written to the provider's cache, audio and images are
    parts of it, and `output_tokens` is the whole answer, reasoning included. A dialect whose provider counts these
    apart adds them up (Anthropic's cache, Gemini's thoughts).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt: read from the provider's cache."""
    reasoning_tokens: int = 0
    """Of the answer."""
    estimated: bool = False
    """The counts are estimates: the provider reported none, as when a stream was cut or a call was abandoned."""
    cache_write_tokens: int = 0
    """Of the prompt: put into the provider's cache."""
    cache_write_1h_tokens: int = 0
    """Of these: to stay for an hour."""
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    """Images generated."""
    audio_s: float = 0.0
    """Input audio in seconds."""
    characters: int = 0
    """Characters turned into speech."""
    cost: float | None = None
    """The charge that the provider reports, in US dollars; None: not reported."""
    total_only: bool = False
    """`input_tokens` is the total of prompt and answer: the provider reports nothing else."""

    @property
    def plain(self) -> bool:
        """Nothing but tokens of one kind in and out."""
        return not (
            self.cached_tokens
            or self.cache_write_tokens
            or self.audio_input_tokens
            or self.audio_output_tokens
            or self.image_input_tokens
            or self.image_output_tokens
            or self.images
            or self.audio_s
            or self.characters
        )

    @property
    def unsaid(self) -> bool:
        """Counts nothing and names no charge: a call is never free of both, so the provider has not counted it."""
        return self.plain and not (self.input_tokens or self.output_tokens or self.reasoning_tokens or self.cost)

    def add(self, other: Usage) -> None:
        """Adds what another one counts; `cost` stays as it is, for an attempt's own is what is summed."""
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.estimated = self.estimated or other.estimated
        if other.reasoning_tokens or not other.plain:
            for name in _KINDS:
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """The counts that are not 0, and the two that are always told."""
        record: dict[str, Any] = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        if self.reasoning_tokens or not self.plain:
            record |= {name: count for name in _KINDS if (count := getattr(self, name))}
        if self.estimated:
            record["estimated"] = True
        return record

    def kinds(self) -> dict[str, int]:
        """The tokens that are a part of the prompt or the answer, by their kind, such as `cached`."""
        if not self.reasoning_tokens and self.plain:
            return {}
        named = (name for name in _KINDS if name.endswith("_tokens"))
        return {name.removesuffix("_tokens"): count for name in named if (count := getattr(self, name))}

    def pieces(self) -> dict[str, float]:
        """Returns the counts of other units than tokens."""
        return {name: count for name in ("images", "audio_s", "characters") if (count := getattr(self, name))}


MOST_TOKENS = 2**53
"""No call has so many; a larger number is not a count."""


def token_count(value: Any) -> int:
    """Reads a count of tokens: a whole number, also one that JSON writes as 7.0. Returns 0 for anything else, which
    `Usage.unsaid` and `token_estimate.completed` take as not known."""
    if type(value) is int:
        return value if 0 < value < MOST_TOKENS else 0
    return int(value) if type(value) is float and 0 < value < MOST_TOKENS and value.is_integer() else 0


_KINDS = (
    "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "audio_input_tokens",
    "audio_output_tokens", "image_input_tokens", "image_output_tokens", "images", "audio_s", "characters",
)  # fmt: skip
"""Parts of the prompt and the answer, and units other than tokens."""
