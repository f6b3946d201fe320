"""Gemini's wire as a server speaks it: generateContent, streamGenerateContent, both ways to embed, countTokens, models.

Sources: as in `engine.dialects.gemini.client`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import UNREADABLE
from engine.dialects.common.server import client_key
from engine.dialects.gemini.server_errors import wire_error
from engine.dialects.gemini.server_reply import wire_embeddings, wire_response
from engine.dialects.gemini.server_request import canonical_chat, canonical_embedding
from engine.dialects.gemini.server_stream import GeminiStreamEncoder
from engine.dialects.server import ClientCall

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_METHODS = {
    "generateContent": "chat",
    "streamGenerateContent": "chat",
    "embedContent": "embedding",
    "batchEmbedContents": "embedding",
    "countTokens": "token-count",
}
_VERSIONS = ("v1beta", "v1")


class GeminiServerDialect:
    """The Gemini API, as its clients see it."""

    routes = {
        ("POST", f"/{version}/models/{{model}}:{method}"): task
        for version in _VERSIONS
        for method, task in _METHODS.items()
    } | {("GET", f"/{version}/models"): "models" for version in _VERSIONS}
    stream_type = "text/event-stream"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        path, _, query = path.partition("?")
        method = path.rpartition(":")[2]
        stream = method == "streamGenerateContent"
        asked = query.split("&")
        if stream and "alt=sse" not in asked:
            raise InvalidRequest("alt: this server streams server-sent events only; request …?alt=sse")
        try:
            wire = _decode(content)
        except UNREADABLE as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from error
        warnings: list[str] = []
        model = parts["model"]
        try:
            if _METHODS[method] == "chat":
                body = canonical_chat(wire, warnings)
            elif method == "countTokens":
                # Either a whole request, which names its model, or nothing but contents.
                whole = {**wire.get("generateContentRequest", wire)}
                whole.pop("model", None)
                body = canonical_chat(whole, warnings)
            else:
                body = canonical_embedding(wire, method == "batchEmbedContents", warnings)
        except (AttributeError, TypeError, KeyError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the body is not as the Gemini API has it: {error}") from error
        key = headers.get("x-goog-api-key") or client_key(headers) or _key_in(asked)
        return ClientCall(_METHODS[method], {"model": model, **body}, stream, model, key, warnings)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        """Raises Malformed when the model called a tool with arguments that are no JSON object."""
        if call.task == "token-count":
            return _encode({"totalTokens": body["input_tokens"]})
        if call.task == "embedding":
            return _encode(wire_embeddings(body, type(call.body.get("input")) is list))
        return _encode(wire_response(body, call.model))

    def stream_encoder(self, call: ClientCall) -> GeminiStreamEncoder:
        return GeminiStreamEncoder(call.model)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        status, body = wire_error(error)
        headers = {"content-type": "application/json"}
        if error.retry_after_s is not None:
            # Whole seconds, rounded up: coming back early would only be refused again.
            headers["retry-after"] = str(math.ceil(error.retry_after_s))
        return status, headers, _encode(body)

    def models(self, names: list[str]) -> bytes:
        return _encode({"models": [{"name": f"models/{name}", "displayName": name} for name in names]})


def _key_in(asked: list[str]) -> str | None:
    """The key of a client that puts it into the address, as older ones do. Ours never does."""
    return next((each[4:] for each in asked if each.startswith("key=") and len(each) > 4), None)
