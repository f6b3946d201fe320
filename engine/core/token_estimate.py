"""Estimates the tokens of a request before they are counted."""

from __future__ import annotations

from typing import Any

CHARS_PER_TOKEN = 4.0
"""A rule of thumb for English with byte-pair vocabularies; true counts come with the reply."""
_TEXTS = ("messages", "prompt", "input", "query", "documents", "content", "text")
"""The fields of a body that hold text."""
_NO_LIMIT = frozenset(
    {
        "embedding",
        "rerank",
        "moderation",
        "image",
        "image-edit",
        "speech",
        "transcription",
        "audio-translation",
        "token-count",
    }
)


def input_tokens(body: dict[str, Any], characters: float | None = None) -> int:
    """An estimate of a body's prompt tokens, at least 1; `characters` where they were counted before."""
    return int((_characters(body) if characters is None else characters) / CHARS_PER_TOKEN) + 1


def output_tokens(task: str, body: dict[str, Any], default: int) -> int:
    """The most tokens that the answer may have: the body's own limit where it is one, else `default`; none for an
    answer that is not text, or as long as a recording makes it."""
    if task in _NO_LIMIT:
        return 0
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
    return limit if isinstance(limit, int) and limit > 0 else default


def _characters(value: Any) -> int:
    """Returns the length of all text in a body."""
    kind = type(value)
    if kind is str:
        return len(value)
    total = 0
    if kind is list:
        for item in value:
            # The usual message, without a call for each of its parts.
            if type(item) is dict and len(item) == 2 and "role" in item and type(text := item.get("content")) is str:
                total += len(text)
            else:
                total += _characters(item)
    elif kind is dict:
        for name in _TEXTS:
            if name in value:
                total += _characters(value[name])
    return total
