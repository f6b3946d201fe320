"""The canonical reply → Anthropic's message, and what whole replies and streams share.

Source: as in `engine.dialects.anthropic.reply`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import Malformed
from engine.dialects.common.json_body import UNREADABLE

_decode = msgspec.json.Decoder().decode

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def wire_message(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The message of a canonical reply: its first choice. Raises Malformed when a call's arguments are no object."""
    choice = body["choices"][0]
    return {
        **message_head(body, model),
        "content": _content(choice["message"]),
        **stop_of(choice),
        "usage": wire_usage(body.get("usage") or {}),
    }


def message_head(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """Returns who says it."""
    return {
        "id": body.get("id") or "msg_0",
        "type": "message",
        "role": "assistant",
        "model": body.get("model") or model or "",
    }


def stop_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Returns why the answer ended: `stop_reason` and `stop_sequence`."""
    reason, sequence = choice.get("finish_reason"), choice.get("stop_reason")
    if reason == "stop" and isinstance(sequence, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    return {"stop_reason": _STOP_REASONS.get(reason, "end_turn"), "stop_sequence": None}  # type: ignore[arg-type]


def wire_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The wire's usage: what the cache gave and took is not a part of `input_tokens`."""
    prompt, answer = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached, written = prompt.get("cached_tokens") or 0, prompt.get("cache_write_tokens") or 0
    said: dict[str, Any] = {
        "input_tokens": max(0, (usage.get("prompt_tokens") or 0) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }
    if answer.get("reasoning_tokens"):
        said["output_tokens_details"] = {"thinking_tokens": answer["reasoning_tokens"]}
    return said


def _content(message: dict[str, Any]) -> list[dict[str, Any]]:
    thought = message.get("reasoning_content") or message.get("reasoning")
    blocks: list[dict[str, Any]] = list(message.get("thinking_blocks") or ())
    if thought and not blocks:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    content = message.get("content") or message.get("refusal")
    if isinstance(content, str):
        blocks.append({"type": "text", "text": content})
    elif content:
        blocks.extend({"type": "text", "text": part["text"]} for part in content if part.get("type") == "text")
    for call in message.get("tool_calls") or ():
        function = call["function"]
        try:
            given = _decode(function.get("arguments") or "{}")
        except UNREADABLE as error:
            raise Malformed(
                f"the model's call of {function.get('name')} has arguments that are not JSON: {error}"
            ) from error
        if type(given) is not dict:
            raise Malformed(f"the model's call of {function.get('name')} has arguments that are not an object")
        blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given})
    return blocks
