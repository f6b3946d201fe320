"""Canonical answers in Ollama's words, whole and streamed. Source: Ollama's docs, "API Reference" and "Streaming"."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.core.errors import InferenceError
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.common.boundary import writes
from engine.dialects.server import ClientCall

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class OllamaStreamEncoder:
    """One JSON object a line. Ollama knows whole tool calls only, so these wait until their arguments have come."""

    __slots__ = ("_call", "_calls", "_generate", "_head", "_reason", "_usage")

    def __init__(self, call: ClientCall, generate: bool) -> None:
        """`generate`: the client called /api/generate, whose lines have another form."""
        self._call = call
        self._generate = generate
        self._head: dict[str, Any] | None = None
        self._calls: dict[int, dict[str, Any]] = {}
        """The tool calls so far, by their index."""
        self._reason: str | None = None
        self._usage: dict[str, int] = {}

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        body = chunk.body
        if self._head is None:
            self._head = {"model": body.get("model") or self._call.model or "", "created_at": created_at(body)}
        usage = body.get("usage")
        if usage:
            self._usage = counts(usage)
        elif chunk.usage is not None:
            self._usage = _counted(chunk.usage)
        choices = body.get("choices")
        if not choices:
            return b""
        choice = choices[0]
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        text = choice.get("text") if self._call.task == "completion" else delta.get("content")
        thinking = reasoning(delta) or reasoning(choice)
        found = logprobs(choice)
        if not (text or thinking or found):
            return b""
        return self._line(text or "", thinking, found)

    @writes
    def end(self) -> bytes:
        calls = b""
        if self._calls:
            written = [write_call(call) for _, call in sorted(self._calls.items())]
            message = {"role": "assistant", "content": "", "tool_calls": written}
            calls = _encode({**(self._head or {}), "message": message, "done": False}) + b"\n"
        last: dict[str, Any] = {"response": ""} if self._generate else {"message": {"role": "assistant", "content": ""}}
        return (
            calls
            + _encode(
                {**(self._head or {}), **last, "done": True, "done_reason": done_reason(self._reason), **self._usage}
            )
            + b"\n"
        )

    def failed(self, error: InferenceError) -> bytes:
        return _encode({"error": error.message}) + b"\n"

    def _line(self, text: str, thinking: str | None, found: list[Any] | None) -> bytes:
        line = dict(self._head or {})
        part = {"thinking": thinking} if thinking else {}
        if self._generate:
            line |= {"response": text, **part}
        else:
            line["message"] = {"role": "assistant", "content": text, **part}
        line["done"] = False
        if found:
            line["logprobs"] = found
        return _encode(line) + b"\n"

    def _take_call(self, call: dict[str, Any]) -> None:
        known = self._calls.setdefault(call.get("index") or 0, {"id": None, "function": {"name": "", "arguments": ""}})
        known["id"] = call.get("id") or known["id"]
        function = call.get("function") or {}
        known["function"]["name"] += function.get("name") or ""
        known["function"]["arguments"] += function.get("arguments") or ""


def write_message(message: dict[str, Any]) -> dict[str, Any]:
    """The message of a whole answer."""
    written: dict[str, Any] = {"role": "assistant", "content": message.get("content") or message.get("refusal") or ""}
    thinking = reasoning(message)
    if thinking:
        written["thinking"] = thinking
    if message.get("tool_calls"):
        written["tool_calls"] = [write_call(call) for call in message["tool_calls"]]
    return written


def write_call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call, its arguments as an object; what a model wrote that is not an object is kept under `arguments`."""
    function = call["function"]
    text = function.get("arguments") or "{}"
    try:
        arguments = _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        arguments = text
    if type(arguments) is not dict:
        arguments = {"arguments": arguments}
    written: dict[str, Any] = {"function": {"name": function.get("name") or "", "arguments": arguments}}
    return {"id": call["id"], **written} if call.get("id") else written


def reasoning(part: dict[str, Any]) -> str | None:
    """Returns what the model thought, under either of its names."""
    return part.get("reasoning_content") or part.get("reasoning") or None


def logprobs(choice: dict[str, Any]) -> list[Any] | None:
    """The tokens' log probabilities, in the chat's form or the completion's."""
    found = choice.get("logprobs")
    if not found:
        return None
    if found.get("content"):
        return list(found["content"])
    likeliest = found.get("top_logprobs") or []
    pairs = zip(found.get("tokens") or (), found.get("token_logprobs") or (), strict=False)
    tokens = [{"token": token, "logprob": value} for token, value in pairs]
    for token, others in zip(tokens, likeliest, strict=False):
        if others:
            token["top_logprobs"] = [{"token": name, "logprob": value} for name, value in others.items()]
    return tokens or None


def done_reason(reason: str | None) -> str:
    """A call of tools is an ordinary end to Ollama."""
    return "stop" if reason in (None, "tool_calls") else reason


def counts(usage: dict[str, Any] | None) -> dict[str, int]:
    """Returns the counts of a canonical usage object; empty if the usage is unknown."""
    if not usage:
        return {}
    return {"prompt_eval_count": usage.get("prompt_tokens") or 0, "eval_count": usage.get("completion_tokens") or 0}


def created_at(body: dict[str, Any]) -> str:
    """Returns when it was made, in RFC 3339."""
    return datetime.fromtimestamp(body.get("created") or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _counted(usage: Usage) -> dict[str, int]:
    return {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
