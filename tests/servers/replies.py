"""Bodies as OpenAI-speaking providers send them."""

from __future__ import annotations

from typing import Any


def completion(text: str = "Paris.", reason: str = "stop", **fields: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        **fields,
    }


def chunk(text: str | None = None, reason: str | None = None, role: str | None = None, **fields: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    if role is not None:
        delta["role"] = role
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        **fields,
    }


def usage_chunk(prompt: int = 7, answer: int = 2) -> dict[str, Any]:
    return {**chunk(), "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}


def error(message: str, code: str | int | None = None, kind: str = "error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
