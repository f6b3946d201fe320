"""Anthropic's wire: the Messages API.

Sources: Anthropic's API reference, "Create a Message", "Count tokens", "List models", "Versioning", "Migrating to API
version 2026-10-21", and its guide "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.request import RateHints
from engine.dialects.anthropic.errors import rate_hints, typed_error
from engine.dialects.anthropic.messages import Unsupported
from engine.dialects.anthropic.reply import chat_reply
from engine.dialects.anthropic.request import SAMPLING, wire_body
from engine.dialects.anthropic.stream import AnthropicStreamDecoder
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import HttpDialect
from engine.dialects.common.boundary import reads_reply
from engine.dialects.common.json_body import counted, lenient, names

VERSION = "2026-10-21"
"""Of the API, sent with every call."""
SAMPLING_VERSION = "2023-06-01"
"""Sent with a call that sets temperature, top_p or top_k: the newer version refuses these from every model."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""The fields that the token counter takes."""
_COUNTING = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "thinking", "reasoning_effort", "response_format",
)  # fmt: skip
"""The canonical fields that these come from."""


class AnthropicDialect(HttpDialect):
    """Anthropic's wire: chat, and the count of a chat's tokens. It has no embeddings, and its completions are gone."""

    tasks = frozenset({"chat", "token-count"})
    list_path = "/v1/models?limit=1000"
    typed_error = typed_error

    def constant_headers(self, stream: bool) -> dict[str, str]:
        return {**super().constant_headers(stream), "anthropic-version": VERSION}

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task == "token-count":
            if stream:
                raise InvalidRequest("task: a count can't be streamed")
            return self.count_tokens(body, model=model, drop_unsupported=drop_unsupported)
        if task != "chat":
            raise InvalidRequest(f"task: {task!r} is not on Anthropic's wire; it has chat and token-count")
        unsupported = Unsupported(drop_unsupported)
        wire = _wire(body, model, unsupported)
        if stream:
            wire["stream"] = True
        sampled = any(name in wire for name in SAMPLING)
        headers = {"anthropic-version": SAMPLING_VERSION} if sampled else {}
        return WireCall("POST", "/v1/messages", _json(wire), headers, unsupported.warnings)

    def count_tokens(self, body: dict[str, Any], *, model: str, drop_unsupported: bool = False) -> WireCall:
        """The call that counts a chat body's input tokens, free of charge; `token_count` reads its reply.

        Fields that say how to answer are passed over. Raises InvalidRequest for what the wire can't count."""
        unsupported = Unsupported(drop_unsupported)
        wire = _wire({name: body[name] for name in _COUNTING if name in body}, model, unsupported)
        fields = {name: wire[name] for name in _COUNTED if name in wire}
        return WireCall("POST", "/v1/messages/count_tokens", _json(fields), warnings=unsupported.warnings)

    def token_count(self, status: int, headers: Mapping[str, str], content: bytes) -> int:
        """Input tokens, from the reply to `count_tokens`. Raises an InferenceError."""
        count = self.reply_object(status, headers, content).get("input_tokens")
        if type(count) is not int:
            raise self.error(status, headers, content)
        return count

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if task == "token-count":
            return counted(self.token_count(status, headers, content), self.request_id(headers))
        message = self.reply_object(status, headers, content)
        try:
            body, usage = chat_reply(message, content, int(self._wall()))
        except InferenceError as error:
            error.status, error.provider_request_id = status, self.request_id(headers)
            raise
        return Reply(body, usage, self.request_id(headers))

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder(self._wall, show_usage=show_usage)

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("request-id") or headers.get("x-request-id")

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        return rate_hints(headers, self._wall())

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key}

    def models(self, content: bytes) -> list[str]:
        body = lenient(content)
        return names(body.get("data"), "id") if type(body) is dict else []

    def reply_object(self, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        body = super().reply_object(status, headers, content)
        if body.get("type") == "error":
            raise self.error(status, headers, content)
        return body


def _wire(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    try:
        return wire_body(body, model, unsupported)
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidRequest(f"body: a value is not of the type that the OpenAI form has there: {error}") from error


def _json(wire: dict[str, Any]) -> bytes:
    try:
        return _encode(wire)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"body: can't be written as JSON: {error}") from error
