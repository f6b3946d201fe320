"""Anthropic's wire as a server speaks it: the Messages API for clients of ours.

Sources: as in `engine.dialects.anthropic.client`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.anthropic.server_errors import wire_error
from engine.dialects.anthropic.server_reply import wire_message
from engine.dialects.anthropic.server_request import canonical_chat
from engine.dialects.anthropic.server_stream import AnthropicStreamEncoder
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import UNREADABLE
from engine.dialects.server import ClientCall

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class AnthropicServerDialect:
    """The Messages API, as its clients see it."""

    routes = {
        ("POST", "/v1/messages"): "chat",
        ("POST", "/v1/messages/count_tokens"): "token-count",
        ("GET", "/v1/models"): "models",
    }
    stream_type = "text/event-stream"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        try:
            wire = _decode(content)
        except UNREADABLE as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from error
        if type(wire) is not dict:
            raise InvalidRequest(f"the body: expected an object, got {type(wire).__name__}")
        warnings: list[str] = []
        task = self.routes["POST", path.partition("?")[0]]
        if task == "token-count":
            wire = {"max_tokens": 1, **wire}  # which a chat must have, and a count has not
        try:
            body = canonical_chat(wire, warnings)
        except (AttributeError, TypeError, KeyError) as error:
            raise InvalidRequest(f"the body is not as the Messages API has it: {error}") from error
        if task == "token-count":
            body.pop("max_tokens")
        stream = task == "chat" and wire.get("stream") is True
        return ClientCall(task, body, stream, body["model"], _key(headers), warnings)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        """Raises Malformed when the model called a tool with arguments that are no JSON object."""
        if call.task == "token-count":
            return _encode({"input_tokens": body["input_tokens"]})
        return _encode(wire_message(body, call.model))

    def stream_encoder(self, call: ClientCall) -> AnthropicStreamEncoder:
        return AnthropicStreamEncoder(call.model)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        status, body = wire_error(error)
        headers = {"content-type": "application/json"}
        if error.retry_after_s is not None:
            # Whole seconds, rounded up: coming back early would only be refused again.
            headers["retry-after"] = str(math.ceil(error.retry_after_s))
        if error.provider_request_id is not None:
            headers["request-id"] = error.provider_request_id
        return status, headers, _encode(body)

    def models(self, names: list[str]) -> bytes:
        entries = [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                # What the wire says of a model whose date is not known.
                "created_at": "1970-01-01T00:00:00Z",
                "lifecycle": "active",
            }
            for name in names
        ]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return _encode({"data": entries, "has_more": False, **ends})


def _key(headers: Mapping[str, str]) -> str | None:
    """The client's key; its newer clients send it as a bearer token."""
    key = headers.get("x-api-key")
    if key:
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
