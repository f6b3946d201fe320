"""Estimates the tokens of a request before they are counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.core.task_table import TASKS
from engine.core.usage import Usage

CHARS_PER_TOKEN = 4.0
"""A rule of thumb for English with byte-pair vocabularies; true counts come with the reply."""
_TEXTS = ("messages", "prompt", "input", "query", "documents", "content", "text")
"""The fields of a body that hold text."""
_ANSWERS = frozenset(("content", "text", "reasoning_content", "reasoning", "refusal", "arguments"))
"""The fields of a reply that hold what a model wrote."""


def input_tokens(body: dict[str, Any], characters: float | None = None) -> int:
    """An estimate of a body's prompt tokens, at least 1; `characters` where they were counted before."""
    return int((_characters(body) if characters is None else characters) / CHARS_PER_TOKEN) + 1


def output_tokens(task: str, body: dict[str, Any], default: int) -> int:
    """The most tokens that the answer may have: the body's own limit where it is one, else `default`; none for an
    answer that is not text, or as long as a recording makes it."""
    if not TASKS[task].output_limit:
        return 0
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
    return limit if isinstance(limit, int) and limit > 0 else default


def completed(usage: Usage | None, task: str, asked: dict[str, Any], written: int) -> Usage | None:
    """Completes what a provider counted of a call, `written` being the tokens of its answer by an estimate.

    Returns None if it counted nothing: that is not known, and never 0. Where it counted one side alone, or the total
    alone (`total_only`), the other one is an estimate, and the usage is marked as one.
    """
    if usage is None or task == "token-count":
        return usage
    if usage.unsaid:
        return None
    if not TASKS[task].text_in_and_out or usage.cost:
        return usage
    if usage.total_only:
        written = min(written, usage.input_tokens)
        return replace(usage, input_tokens=usage.input_tokens - written, output_tokens=written, estimated=True)
    if not usage.input_tokens:
        return replace(usage, input_tokens=input_tokens(asked), estimated=True)
    if not usage.output_tokens and written:
        return replace(usage, output_tokens=written, estimated=True)
    return usage


def written_tokens(reply: dict[str, Any]) -> int:
    """An estimate of the tokens of an answer: its text, its reasoning and its calls of tools; 0 if it has none."""
    return -(-int(_length(reply.get("choices") or reply.get("output"))) // int(CHARS_PER_TOKEN))


def _length(value: Any, name: str = "") -> int:
    """Returns the length of all that a model may have written: strings under the names of `_ANSWERS`."""
    if type(value) is str:
        return len(value) if name in _ANSWERS else 0
    if type(value) is list:
        return sum(_length(item, name) for item in value)
    return sum(_length(item, key) for key, item in value.items()) if type(value) is dict else 0


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
