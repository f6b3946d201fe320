"""Anthropic's wire: the Messages API.

Sources: Anthropic's API reference, "Create a Message", "Count tokens", "List models", "Versioning", "Migrating to API
version 2026-10-21", and its guide "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.request import RateHints
from engine.dialects.anthropic.errors import rate_hints, typed_error
from engine.dialects.anthropic.messages import Unsupported
from engine.dialects.anthropic.reply import chat_reply
from engine.dialects.anthropic.request import SAMPLING, wire_body
from engine.dialects.anthropic.stream import AnthropicStreamDecoder
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.boundary import reads_reply
from engine.dialects.common.json_body import lenient, names, written
from engine.dialects.common.token_counter import TokenCounter

VERSION = "2026-10-21"
"""Of the API, sent with every call."""
SAMPLING_VERSION = "2023-06-01"
"""Sent with a call that sets temperature, top_p or top_k: the newer version refuses these from every model."""

_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""The fields that the token counter takes."""
_COUNTING = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "thinking", "reasoning_effort", "response_format",
)  # fmt: skip
"""The canonical fields that these come from."""


class AnthropicDialect(TokenCounter):
    """Anthropic's wire: chat, and the count of a chat's tokens. It has no embeddings, and its completions are gone."""

    tasks = frozenset({"chat", "token-count"})
    list_path = "/v1/models?limit=1000"
    typed_error = typed_error
    count_field = "input_tokens"

    def constant_headers(self, stream: bool) -> dict[str, str]:
        return {**super().constant_headers(stream), "anthropic-version": VERSION}

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task == "token-count":
            return self._encode_count(body, model, stream, drop_unsupported)
        if task != "chat":
            raise InvalidRequest(f"task: {task!r} is not on Anthropic's wire; it has chat and token-count")
        unsupported = Unsupported(drop_unsupported)
        wire = _wire(body, model, unsupported)
        if stream:
            wire["stream"] = True
        sampled = any(name in wire for name in SAMPLING)
        headers = {"anthropic-version": SAMPLING_VERSION} if sampled else {}
        return WireCall("POST", "/v1/messages", written(wire), headers, unsupported.warnings)

    def count_tokens(self, body: dict[str, Any], *, model: str, drop_unsupported: bool = False) -> WireCall:
        unsupported = Unsupported(drop_unsupported)
        wire = _wire({name: body[name] for name in _COUNTING if name in body}, model, unsupported)
        fields = {name: wire[name] for name in _COUNTED if name in wire}
        return WireCall("POST", "/v1/messages/count_tokens", written(fields), warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if task == "token-count":
            return self._decode_count(status, headers, content)
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
