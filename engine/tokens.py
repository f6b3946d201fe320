"""How many tokens a request may cost, before anybody has counted them."""

from __future__ import annotations

from typing import Any

CHARS_PER_TOKEN = 4.0
"""A rule of thumb for English with byte-pair vocabularies; true counts come with the reply."""


def input_tokens(body: dict[str, Any]) -> int:
    """An estimate of a body's prompt tokens, at least 1."""
    return int(_characters(body) / CHARS_PER_TOKEN) + 1


def output_tokens(task: str, body: dict[str, Any], default: int) -> int:
    """The most tokens that the answer may have: the body's own limit, else `default`; none for an embedding or a rerank."""
    if task in ("embedding", "rerank"):
        return 0
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else default


def _characters(value: Any) -> int:
    """Length of the text in a body, wherever it stands."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(
            _characters(value[key]) for key in ("messages", "prompt", "input", "query", "documents", "content", "text") if key in value
        )
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    return 0
