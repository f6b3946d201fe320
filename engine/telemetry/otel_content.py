"""Prompts and answers as attributes of a span, with telemetry.otel_content=on.

Source: open-telemetry/semantic-conventions-genai, gen-ai-input-messages.json and gen-ai-output-messages.json. The
values are JSON texts, because span attributes have no structure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.request import Request


def content(request: Request, reply: dict[str, Any] | None) -> dict[str, str]:
    """Returns the messages in and out. Embeddings have none, and a stream's answer is not kept."""
    attributes = {}
    asked = _asked(request)
    if asked:
        attributes["gen_ai.input.messages"] = _json(asked)
    answered = [_answer(choice) for choice in (reply or {}).get("choices") or ()]
    if answered:
        attributes["gen_ai.output.messages"] = _json(answered)
    return attributes


def _asked(request: Request) -> list[dict[str, Any]]:
    messages, prompt = request.body.get("messages"), request.body.get("prompt")
    if isinstance(messages, list):
        return [_message(message) for message in messages if isinstance(message, dict)]
    prompts = prompt if isinstance(prompt, list) else [prompt]
    return [{"role": "user", "parts": [_text(text)]} for text in prompts if isinstance(text, str)]


def _answer(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message") or {"role": "assistant", "content": choice.get("text")}
    return {**_message(message), "finish_reason": choice.get("finish_reason") or "stop"}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role", "user"), message.get("content")
    if role == "tool":
        parts: list[dict[str, Any]] = [
            {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        ]
    elif isinstance(content, list):
        parts = [_part(part) for part in content if isinstance(part, dict)]
    else:
        parts = [_text(content)] if content else []
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = {"name": function.get("name"), "arguments": function.get("arguments")}
        parts.append({"type": "tool_call", "id": call.get("id"), **arguments})
    return {"role": role, "parts": parts}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """Names only the kind of an image or audio: megabytes do not belong into a span."""
    return _text(part.get("text")) if part.get("type") == "text" else {"type": part.get("type")}


def _text(text: Any) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
