"""The usage of the OpenAI wire, in canonical counts.

Two sets of names are in use: chat, completions and embeddings say `prompt_tokens` and `completion_tokens`; responses,
images, speech and transcriptions say `input_tokens` and `output_tokens`. On both, cached tokens and those of audio and
images are parts of the prompt, and reasoning is a part of the answer; xAI alone counts the reasoning of a chat apart,
which its total shows. Sources: OpenAI's API reference, the `usage` object of each operation; what a provider says of
the cost: OpenRouter's "Usage Accounting", xAI's "Cost Tracking", Perplexity's API reference (`usage.cost`).
"""

from __future__ import annotations

from typing import Any

from engine.core.usage import Usage, token_count

_TICKS = 10_000_000_000
"""xAI's unit of cost: so many are a dollar."""

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount", "inputTokenCount")
_ANSWER = (
    "completion_tokens", "output_tokens", "completionTokens", "outputTokens", "candidatesTokenCount",
    "outputTokenCount",
)  # fmt: skip
"""The names of the two counts: the wire's, and those of other wires that a gateway leaves as they were."""


def read_usage(usage: dict[str, Any]) -> Usage:
    """The counts of a usage object; what is missing or no count is 0, and `token_estimate.completed` knows that."""
    prompt, answer = _named(usage, _PROMPT), _named(usage, _ANSWER)
    if "prompt_tokens" not in usage and ("input_tokens" in usage or "output_tokens" in usage):
        # Transcriptions say `token`, where all others say `tokens`.
        given = usage.get("input_tokens_details") or usage.get("input_token_details")
        made = usage.get("output_tokens_details") or usage.get("output_token_details")
    else:
        given, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    found = Usage(prompt, answer)
    if not answer and (total := token_count(usage.get("total_tokens") or usage.get("totalTokens"))) > prompt:
        if prompt:
            found.output_tokens = total - prompt
        else:
            found.input_tokens, found.total_only = total, True
    if usage.get("type") == "duration":
        found.audio_s = _amount(usage.get("seconds")) or 0.0
    if type(given) is dict:
        _read_prompt(given, found)
    else:
        # DeepSeek before it took OpenAI's details, and Moonshot.
        found.cached_tokens = token_count(usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens"))
    if type(made) is dict:
        _read_answer(made, found, usage.get("total_tokens"))
    if "cost" in usage or "cost_in_usd_ticks" in usage:
        found.cost = _said_cost(usage)
    return found


def _read_prompt(details: dict[str, Any], found: Usage) -> None:
    get = details.get
    # Perplexity's responses name Anthropic's words.
    found.cached_tokens = token_count(get("cached_tokens") or get("cache_read_input_tokens"))
    if written := get("cache_write_tokens"):
        found.cache_write_tokens = token_count(written)
    if sound := get("audio_tokens"):
        found.audio_input_tokens = token_count(sound)
    if pictures := get("image_tokens"):
        found.image_input_tokens = token_count(pictures)


def _read_answer(details: dict[str, Any], found: Usage, total: Any) -> None:
    get = details.get
    if thought := get("reasoning_tokens"):
        thoughts = found.reasoning_tokens = token_count(thought)
        if total == found.input_tokens + found.output_tokens + thoughts:
            found.output_tokens += thoughts
    if sound := get("audio_tokens"):
        found.audio_output_tokens = token_count(sound)
    if pictures := get("image_tokens"):
        found.image_output_tokens = token_count(pictures)


def _said_cost(usage: dict[str, Any]) -> float | None:
    """Returns what the provider says that the call cost, in US dollars; None: nothing that can be read."""
    ticks = _amount(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / _TICKS
    cost = usage.get("cost")
    if type(cost) is dict:  # Perplexity
        return _amount(cost.get("total_cost"))
    said = _amount(cost)
    details = usage.get("cost_details")
    if said is not None and usage.get("is_byok") is True and type(details) is dict:
        # OpenRouter with a key of one's own: the fee, and what the provider behind it takes.
        upstream = _amount(details.get("upstream_inference_cost"))
        return None if upstream is None else said + upstream
    return said


def _named(usage: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first count under one of the names."""
    for name in names:
        if name in usage and (count := token_count(usage[name])):
            return count
    return 0


def _amount(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e15 else None
