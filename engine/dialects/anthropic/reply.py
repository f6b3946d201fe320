"""Anthropic's message → the canonical reply, and what whole replies and streams share.

Source: Anthropic's API reference, "Create a Message" (response), and the guide "Stop reasons".
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import ContentFiltered, Malformed
from engine.core.usage import Usage, token_count
from engine.dialects.common.error_body import excerpt

_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # The server stopped in the middle of its own tools; the answer has no end.
}
"""Stop reason → finish reason. `refusal` is not an end but a failure."""


def chat_reply(message: dict[str, Any], content: bytes, created: int) -> tuple[dict[str, Any], Usage]:
    """The canonical reply of a decoded message, and its usage. Raises Malformed and ContentFiltered."""
    blocks, reason = message.get("content"), message.get("stop_reason")
    if type(blocks) is not list:
        raise Malformed(f"HTTP 200: the reply has no content: {excerpt(content)}")
    if reason == "refusal":
        refusal = refused(message.get("stop_details"))
        refusal.usage = read_usage(message.get("usage"))[1]
        raise refusal
    finish = finish_of(reason) if blocks else FINISH_REASONS.get(reason) if type(reason) is str else None
    if finish is None:
        raise Malformed(f"HTTP 200: the reply's stop_reason is {reason!r}: {excerpt(content)}")
    try:
        answer = _answer(blocks)
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"HTTP 200: a content block is not as documented ({error!r}): {excerpt(content)}") from error
    choice: dict[str, Any] = {"index": 0, "message": answer, "finish_reason": finish}
    if reason == "stop_sequence":
        choice["stop_reason"] = message.get("stop_sequence")
    said, usage = read_usage(message.get("usage"))
    body = {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": message.get("model"),
        "choices": [choice],
        "usage": said,
    }
    return body, usage


def finish_of(reason: Any) -> str | None:
    """The finish reason of an answer that is not empty: a stop reason that is not known is passed on; None if there is
    none."""
    return FINISH_REASONS.get(reason, reason) if type(reason) is str and reason else None


def _answer(blocks: list[Any]) -> dict[str, Any]:
    """Returns the canonical message of a reply's content blocks. Blocks of server tools, which no canonical request can
    use, are left out."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[dict[str, Any]] = []
    for block in blocks:
        kind = block["type"]
        if kind == "text":
            texts.append(block["text"])
        elif kind == "tool_use":
            if type(block["name"]) is not str or type(block["id"]) is not str:
                raise TypeError("a tool_use without name or id")
            function = {"name": block["name"], "arguments": _encode(block["input"]).decode()}
            calls.append({"id": block["id"], "type": "function", "function": function})
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(block)
    answer: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if thoughts:
        reasoning = "".join([block.get("thinking") or "" for block in thoughts])
        if reasoning:
            answer["reasoning_content"] = reasoning
        answer["thinking_blocks"] = thoughts
    if calls:
        answer["tool_calls"] = calls
    return answer


def refused(details: Any) -> ContentFiltered:
    """The failure that stop reason `refusal` is, from its `stop_details`."""
    said = details if type(details) is dict else {}
    category, why = said.get("category"), said.get("explanation")
    message = "the provider's safety classifier stopped the answer"
    if category:
        message += f" ({category})"
    if why:
        message += f": {why}"
    return ContentFiltered(message, status=200, code="refusal")


def read_usage(usage: Any) -> tuple[dict[str, Any], Usage]:
    """The canonical usage object, and the tokens. Anthropic counts what the cache gave and took apart from
    `input_tokens`; the canonical prompt holds them all."""
    if type(usage) is not dict:
        usage = {}
    cached, written = (
        token_count(usage.get("cache_read_input_tokens")),
        token_count(usage.get("cache_creation_input_tokens")),
    )
    lasting = usage.get("cache_creation")
    hour = token_count(lasting.get("ephemeral_1h_input_tokens")) if written and type(lasting) is dict else 0
    prompt = token_count(usage.get("input_tokens")) + cached + written
    answer = token_count(usage.get("output_tokens"))
    details = usage.get("output_tokens_details")
    reasoning = token_count(details.get("thinking_tokens")) if type(details) is dict else 0
    said: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
    if cached or written:
        said["prompt_tokens_details"] = {"cached_tokens": cached, "cache_write_tokens": written}
    if reasoning:
        said["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return said, Usage(
        prompt, answer, cached, reasoning, cache_write_tokens=written, cache_write_1h_tokens=min(hour, written)
    )
