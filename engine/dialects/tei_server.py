"""Text Embeddings Inference's wire, as a server speaks it: /embed, /rerank, /info. Its OpenAI path is the OpenAI
dialect's.

Source: the server's OpenAPI document (huggingface.github.io/text-embeddings-inference) and its router.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.dialects import ClientCall, StreamEncoder
from engine.dialects.openai_server import client_key
from engine.errors import InferenceError, InvalidRequest

_TASKS = {"/embed": "embedding", "/rerank": "rerank"}
_DEFAULTS: dict[str, Any] = {
    "truncate": False, "normalize": True, "truncation_direction": "Right", "raw_scores": False, "prompt_name": None,
}  # fmt: skip
"""Flags of the server's own; where they say what the canonical form means anyway, they are left out."""
_STATUSES = {
    "throttled": (429, "Overloaded"),
    "overloaded": (429, "Overloaded"),
    "queue_full": (429, "Overloaded"),
    "circuit_open": (429, "Overloaded"),
    "invalid_request": (422, "Validation"),
    "too_long": (422, "Validation"),
}
"""Status and `error_type` by the word of the failure vocabulary; others are the backend's, with their own status."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class TeiServerDialect:
    """Text Embeddings Inference's wire, for clients of ours."""

    routes = {("POST", path): task for path, task in _TASKS.items()} | {("GET", "/info"): "models"}
    stream_type = "application/json"

    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        try:
            wire = _decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from error
        if type(wire) is not dict:
            raise InvalidRequest("the body is not a JSON object")
        task = _TASKS[path.partition("?")[0]]
        if task == "embedding":
            known = frozenset(("inputs", "dimensions"))
            body: dict[str, Any] = {"input": wire.get("inputs")}
            if not isinstance(body["input"], str | list) or not body["input"]:
                raise InvalidRequest("body.inputs: expected a text or a list of texts")
            if wire.get("dimensions") is not None:
                body["dimensions"] = wire["dimensions"]
        else:
            known = frozenset(("query", "texts", "return_text"))
            body = {"query": wire.get("query"), "documents": wire.get("texts")}
            if type(body["query"]) is not str or type(body["documents"]) is not list or not body["documents"]:
                raise InvalidRequest("body.query, body.texts: expected a text and a list of texts")
            body["return_documents"] = wire.get("return_text") is True
        warnings: list[str] = []
        for name, value in wire.items():
            if name in _DEFAULTS:
                value = value.capitalize() if name == "truncation_direction" and type(value) is str else value
                if value is not None and value != _DEFAULTS[name]:
                    body[name] = value
            elif name not in known:
                warnings.append(f"body.{name} has no effect here")
        return ClientCall(task, body, False, None, client_key(headers), warnings)

    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        if call.task == "embedding":
            return _encode([item["embedding"] for item in body["data"]])
        ranks: list[dict[str, Any]] = []
        for result in body["results"]:
            rank = {"index": result["index"], "score": result["relevance_score"]}
            document = result.get("document")
            if document is not None:
                rank["text"] = document.get("text") if type(document) is dict else document
            ranks.append(rank)
        return _encode(ranks)

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        raise InvalidRequest(f"task: an answer to {call.task} can't be streamed")

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        headers: dict[str, str] = {}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(math.ceil(error.retry_after_s))
        status, kind = _STATUSES.get(error.kind, (error.status_code, "Backend"))
        return status, headers, _encode({"error": error.message, "error_type": kind})

    def models(self, names: list[str]) -> bytes:
        """The server's description of itself; such a server has one model, so it is the first."""
        name = names[0] if names else ""
        return _encode({"model_id": name, "served_model_name": name})
