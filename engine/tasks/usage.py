"""Tokens in OpenAI's words."""

from __future__ import annotations

from engine.request import Usage


def openai_usage(usage: Usage) -> dict[str, int]:
    """The `usage` object of a reply."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
