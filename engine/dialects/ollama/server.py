"""Ollama's own wire, as a server speaks it: /api/chat, /api/generate, /api/embed, /api/tags.

Source: Ollama's docs, "API Reference" (openapi.yaml), and its types (api/types.go). /api/generate has two meanings: raw
or with a suffix it continues from a prompt; else the model's chat template makes a question of it, so it is a chat
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json, retry_after
from engine.dialects.common.server import client_key
from engine.dialects.ollama.server_reply import (
    OllamaStreamEncoder,
    counts,
    created_at,
    done_reason,
    logprobs,
    reasoning,
    write_message,
)
from engine.dialects.ollama.server_request import read_fields, read_messages, read_prompt
from engine.dialects.server import ClientCall

VERSION = "0.12.0"
"""Of Ollama's API that is spoken: tool calls have ids."""
_SHOWN: dict[str, Any] = {
    "modified_at": "1970-01-01T00:00:00Z",
    "details": {},
    "model_info": {},
    "capabilities": ["completion", "tools", "vision", "embedding"],
}
"""The facts given of every model: its abilities are not known here."""
_TASKS = {"/api/chat": "chat", "/api/generate": "completion", "/api/embed": "embedding"}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class OllamaCall(ClientCall):
    """A call, and on which path it came."""

    generate: bool = False
    """On /api/generate, whose replies have another form than /api/chat."""


class OllamaServerDialect:
    """Ollama's own wire, for clients of ours."""

    routes = {("POST", path): task for path, task in _TASKS.items()} | {("GET", "/api/tags"): "models"}
    pages = frozenset((("GET", "/api/version"), ("POST", "/api/show"), ("POST", "/api/pull")))
    stream_type = "application/x-ndjson"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        wire = asked_json(content)
        model = wire.get("model")
        if model is not None and type(model) is not str:
            raise InvalidRequest("body.model: expected the name of a model")
        path = path.partition("?")[0]
        task, generate = _TASKS[path], path == "/api/generate"
        body: dict[str, Any] = {"model": model} if model else {}
        stream = wire.get("stream", True)
        if task == "embedding":
            body["input"] = wire.get("input")
            stream = False
            if not isinstance(body["input"], str | list) or not body["input"]:
                raise InvalidRequest("body.input: expected a text or a list of texts")
        elif generate:
            task = read_prompt(wire, body)
        else:
            body["messages"] = read_messages(wire.get("messages"))
        warnings = read_fields(wire, body, task)
        # What says nothing of streaming is streamed, other than on the OpenAI wire.
        streamed = stream is not False
        return OllamaCall(task, body, streamed, model, client_key(headers), warnings, generate=generate)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        if call.task == "embedding":
            return _encode(_vectors(call, body))
        choice = body["choices"][0]
        wire: dict[str, Any] = {"model": body.get("model") or call.model or "", "created_at": created_at(body)}
        message = choice.get("message") or {}
        if not isinstance(call, OllamaCall) or not call.generate:
            wire["message"] = write_message(message)
        else:
            wire["response"] = choice.get("text") if call.task == "completion" else message.get("content") or ""
            thinking = reasoning(message) or reasoning(choice)
            if thinking:
                wire["thinking"] = thinking
        wire["done"] = True
        wire["done_reason"] = done_reason(choice.get("finish_reason"))
        wire |= counts(body.get("usage"))
        found = logprobs(choice)
        if found:
            wire["logprobs"] = found
        return _encode(wire)

    def stream_encoder(self, call: ClientCall) -> OllamaStreamEncoder:
        return OllamaStreamEncoder(call, isinstance(call, OllamaCall) and call.generate)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        headers = retry_after(error)
        return error.status_code, headers, _encode({"error": error.message})

    def models(self, names: list[str]) -> bytes:
        made = "1970-01-01T00:00:00Z"
        entries = [{"name": name, "model": name, "modified_at": made, "size": 0, "digest": ""} for name in names]
        return _encode({"models": [{**entry, "details": {}} for entry in entries]})

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """The server's version, what a model can do, and the end of a pull: a model is there, or it is not."""
        if path.endswith("/version"):
            return 200, _encode({"version": VERSION})
        try:
            wire = asked_json(content)
        except InvalidRequest as error:
            return 400, _encode({"error": error.message})
        model = wire.get("model") or wire.get("name")
        if model not in names:
            return 404, _encode({"error": f"model '{model}' not found"})
        if path.endswith("/pull"):
            return 200, _encode({"status": "success"}) + b"\n"
        return 200, _encode(_SHOWN)


def _vectors(call: ClientCall, body: dict[str, Any]) -> dict[str, Any]:
    usage = body.get("usage") or {}
    return {
        "model": body.get("model") or call.model or "",
        "embeddings": [item["embedding"] for item in body["data"]],
        "prompt_eval_count": usage.get("prompt_tokens") or 0,
    }
