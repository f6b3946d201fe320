"""Tokens as the OpenAI wire counts them.

Two sets of names are in use: chat, completions and embeddings say `prompt_tokens` and `completion_tokens`; responses,
images, speech and transcriptions say `input_tokens` and `output_tokens`. Source: OpenAI's API reference, the `usage`
object of each operation.
"""

from __future__ import annotations

from typing import Any

from engine.request import Usage


def read_usage(usage: dict[str, Any]) -> Usage:
    """Tokens from a usage object; what is missing or no count is 0."""
    if "prompt_tokens" not in usage and ("input_tokens" in usage or "output_tokens" in usage):
        return _named_by_direction(usage)
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    cached = prompt.get("cached_tokens") if type(prompt) is dict else usage.get("prompt_cache_hit_tokens")  # DeepSeek
    reasoning = completion.get("reasoning_tokens") if type(completion) is dict else None
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(cached),
        _count(reasoning),
    )


def _named_by_direction(usage: dict[str, Any]) -> Usage:
    given, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return Usage(
        _count(usage.get("input_tokens")),
        _count(usage.get("output_tokens")),
        _count(given.get("cached_tokens")) if type(given) is dict else 0,
        _count(made.get("reasoning_tokens")) if type(made) is dict else 0,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
