"""Ollama's answers in canonical words. Source: Ollama's docs, "API Reference" (openapi.yaml); types (api/types.go)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from engine.core.errors import Malformed, Truncated
from engine.core.usage import Usage
from engine.dialects.client import Reply
from engine.dialects.common.error_body import excerpt
from engine.dialects.common.json_body import count, usage_body

_encode = msgspec.json.Encoder().encode


def whole(task: str, body: dict[str, Any], content: bytes, wall: Callable[[], float]) -> Reply:
    """The canonical reply of a chat or completion. Raises Malformed or Truncated."""
    message: Any = body.get("message")
    if task == "chat":
        if type(message) is not dict:
            raise Malformed(f"HTTP 200: the reply has no message: {excerpt(content)}")
    elif type(body.get("response")) is not str:
        raise Malformed(f"HTTP 200: the reply has no response: {excerpt(content)}")
    if body.get("done") is not True:
        raise Truncated("HTTP 200: the answer stops before its end: done is not true")
    reason = finish_reason(body)
    if reason in ("load", "unload"):
        raise Malformed(f"HTTP 200: the server has only done this with the model: {reason}")
    created = created_s(body, wall)
    choice: dict[str, Any] = {"index": 0}
    if task == "chat":
        choice["message"] = _message(message, content)
        if reason == "stop" and message.get("tool_calls"):
            reason = "tool_calls"
        if body.get("logprobs"):
            choice["logprobs"] = logprobs(body["logprobs"])
    else:
        choice["text"] = body["response"]
        if type(body.get("thinking")) is str and body["thinking"]:
            choice["reasoning_content"] = body["thinking"]
        if body.get("logprobs"):
            choice["logprobs"] = legacy_logprobs(body["logprobs"], 0)
    choice["finish_reason"] = reason
    canonical = {
        "id": reply_id(task, body, wall),
        "object": "chat.completion" if task == "chat" else "text_completion",
        "created": created,
        "model": body.get("model") or "",
        "choices": [choice],
    }
    usage = read_usage(body)
    if usage is not None:
        canonical["usage"] = usage_body(usage)
    return Reply(canonical, usage)


def vectors(body: dict[str, Any], content: bytes) -> Reply:
    """The canonical reply of an embedding. Raises Malformed."""
    found = body.get("embeddings")
    if type(found) is not list or not found or not all(type(vector) is list and vector for vector in found):
        raise Malformed(f"HTTP 200: an embedding is missing: {excerpt(content)}")
    tokens = count(body.get("prompt_eval_count"))
    canonical = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)],
        "model": body.get("model") or "",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Reply(canonical, Usage(tokens, 0) if body.get("prompt_eval_count") is not None else None)


def tool_calls(calls: list[Any], first: int) -> list[dict[str, Any]]:
    """Canonical tool calls; `first` is the number of those that came before. Raises KeyError or TypeError for a call
    of nothing."""
    written = []
    for index, call in enumerate(calls, first):
        function = call["function"]
        if not text_of(function, "name"):
            raise KeyError("name")
        arguments = function.get("arguments")
        written.append(
            {
                # Servers before 0.12 give no id; one of these is enough to tell the calls of one answer apart.
                "id": call.get("id") or f"call_{index}",
                "type": "function",
                "function": {
                    "name": function["name"],
                    "arguments": _encode(arguments).decode() if arguments is not None else "{}",
                },
            }
        )
    return written


def logprobs(tokens: list[Any]) -> dict[str, Any]:
    """A chat's log probabilities, whose tokens Ollama writes as OpenAI does."""
    return {
        "content": [{"bytes": None, **token, "top_logprobs": token.get("top_logprobs") or []} for token in tokens],
        "refusal": None,
    }


def legacy_logprobs(tokens: list[Any], offset: int) -> dict[str, Any]:
    """A completion's log probabilities; `offset` is the number of characters before them."""
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token in tokens:
        found["tokens"].append(token["token"])
        found["token_logprobs"].append(token.get("logprob"))
        found["top_logprobs"].append(
            {text: each["logprob"] for each in token.get("top_logprobs") or () if type(text := each["token"]) is str}
        )
        found["text_offset"].append(offset)
        offset += len(token["token"])
    return found


def finish_reason(body: dict[str, Any]) -> str:
    """Returns why it ended; older servers don't say it for an ordinary end."""
    reason = body.get("done_reason")
    return reason if type(reason) is str and reason else "stop"


def read_usage(body: dict[str, Any]) -> Usage | None:
    """Tokens; None where the server counted nothing. A prompt that was wholly cached has no count in older servers."""
    if body.get("prompt_eval_count") is None and body.get("eval_count") is None:
        return None
    return Usage(count(body.get("prompt_eval_count")), count(body.get("eval_count")))


def created_s(body: dict[str, Any], wall: Callable[[], float]) -> int:
    """Returns when it was made, in whole seconds since the epoch; now, where the server does not say it in a way to be
    read."""
    try:
        return int(datetime.fromisoformat(body["created_at"]).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return int(wall())


def reply_id(task: str, body: dict[str, Any], wall: Callable[[], float]) -> str:
    """An id, which Ollama does not give: made of the time of the answer, which it gives to the nanosecond."""
    made = body.get("created_at")
    stamp = "".join(filter(str.isdigit, made)) if type(made) is str else str(int(wall() * 1e6))
    return f"{'chatcmpl' if task == 'chat' else 'cmpl'}-{stamp}"


def text_of(part: dict[str, Any], name: str) -> str | None:
    """The text in a field that may be missing. Raises TypeError for anything else."""
    text = part.get(name)
    if text is not None and type(text) is not str:
        raise TypeError(name)
    return text


def _message(message: dict[str, Any], content: bytes) -> dict[str, Any]:
    try:
        text, thinking = text_of(message, "content") or "", text_of(message, "thinking")
        calls = tool_calls(message["tool_calls"], 0) if message.get("tool_calls") else []
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"HTTP 200: the message can't be read: {excerpt(content)}") from error
    written: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if thinking:
        written["reasoning_content"] = thinking
    if calls:
        written["tool_calls"] = calls
    return written
