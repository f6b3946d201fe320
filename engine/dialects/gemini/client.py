"""Gemini's wire: generateContent, streamGenerateContent, embedContent, batchEmbedContents, countTokens and models.

Sources: the Gemini API's reference (v1beta), "Generating content", "Embeddings", "Counting tokens" and "Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.boundary import reads_reply
from engine.dialects.common.error_body import request_id
from engine.dialects.common.json_body import lenient, names, written
from engine.dialects.common.token_counter import TokenCounter
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.gemini.errors import typed_error
from engine.dialects.gemini.reply import chat_reply, embedding_reply
from engine.dialects.gemini.request import wire_body
from engine.dialects.gemini.stream import GeminiStreamDecoder

_IN_EMBEDDING = frozenset(("input", "model", "dimensions", "encoding_format", "stream", "stream_options", "extra_body"))
_EMBEDDING_EXTRAS = {"task_type": "taskType", "title": "title"}


_COUNTING = ("messages", "tools", "tool_choice", "response_format", "extra_body")
"""The canonical fields that have tokens, or say where there are some."""


class GeminiDialect(TokenCounter):
    """Gemini's own wire."""

    tasks = frozenset({"chat", "embedding", "token-count"})
    list_path = "/models?pageSize=1000"
    typed_error = typed_error
    count_field = "totalTokens"

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task == "token-count":
            return self._encode_count(body, model, stream, drop_unsupported)
        unsupported = Unsupported("Gemini", drop_unsupported)
        if task == "chat":
            wire = _chat_body(body, model, unsupported)
            method = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
        elif task == "embedding":
            if stream:
                raise InvalidRequest("task: an embedding can't be streamed")
            wire = _embedding_body(body, model, unsupported)
            method = ":batchEmbedContents" if "requests" in wire else ":embedContent"
        else:
            raise InvalidRequest(f"task: {task!r} is not on Gemini's wire; it has chat, embedding and token-count")
        return WireCall("POST", _resource(model) + method, written(wire), warnings=unsupported.warnings)

    def count_tokens(self, body: dict[str, Any], *, model: str, drop_unsupported: bool = False) -> WireCall:
        unsupported = Unsupported("Gemini", drop_unsupported)
        wire = _chat_body({name: body[name] for name in _COUNTING if name in body}, model, unsupported)
        resource = _resource(model)
        asked = {"generateContentRequest": {"model": resource[1:], **wire}}
        return WireCall("POST", resource + ":countTokens", written(asked), warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if task == "token-count":
            return self._decode_count(status, headers, content)
        response = self.reply_object(status, headers, content)
        named = request_id(headers)
        if named is None:
            # Google sends no header for it; the response has an id of its own.
            named = response.get("responseId")
            named = named if type(named) is str else None
        try:
            if task == "embedding":
                body, usage = embedding_reply(response, content)
            else:
                body, usage = chat_reply(response, content, int(self._wall()))
        except InferenceError as error:
            error.status, error.provider_request_id = status, named
            raise
        return Reply(body, usage, named)

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> GeminiStreamDecoder:
        return GeminiStreamDecoder(self._wall, show_usage=show_usage)

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}

    def models(self, content: bytes) -> list[str]:
        body = lenient(content)
        listed = names(body.get("models"), "name") if type(body) is dict else []
        return [name.removeprefix("models/") for name in listed]


@lru_cache(maxsize=1024)
def _resource(model: str) -> str:
    """The path of a model: `/models/NAME`, or a tuned one's as it is. Raises InvalidRequest."""
    parts = model.split("/")
    if not all(part and part.strip(".") and part.replace("-", "").replace(".", "").isalnum() for part in _plain(parts)):
        raise InvalidRequest(f"body.model: {model!r} is not a name of a Gemini model, such as gemini-flash-latest")
    return f"/{model}" if len(parts) > 1 else f"/models/{model}"


def _chat_body(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    try:
        return wire_body(body, model, unsupported)
    except (AttributeError, TypeError, KeyError) as error:
        raise InvalidRequest(
            f"body: a field is not of the type that OpenAI's API reference gives it: {error}"
        ) from error


def _plain(parts: list[str]) -> list[str]:
    return [part.replace("_", "") if part.isascii() else "" for part in parts]


def _embedding_body(body: dict[str, Any], model: str, unsupported: Unsupported) -> dict[str, Any]:
    """The body of `embedContent`, or of `batchEmbedContents` for a list of inputs. Raises InvalidRequest."""
    options: dict[str, Any] = {}
    if body.get("dimensions") is not None:
        options["outputDimensionality"] = body["dimensions"]
    for name, value in body.items():
        if name not in _IN_EMBEDDING:
            unsupported.lose_field(name, value)
    # Gemini sends numbers; the caller's base64 is made of them by engine.tasks.embedding.
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {form!r} is not a format; one of: float, base64")
    extra = body.get("extra_body")
    google = extra.get("google") if type(extra) is dict else None
    if extra is not None and type(google) is not dict:
        unsupported.lose("body.extra_body", "Gemini reads extra_body.google only")
    for name, value in (google or {}).items():
        if name in _EMBEDDING_EXTRAS:
            options[_EMBEDDING_EXTRAS[name]] = value
        else:
            unsupported.lose(f"body.extra_body.google.{name}", "Gemini takes task_type and title here")
    given = body.get("input")
    if type(given) is str:
        return {"content": {"parts": [{"text": given}]}, **options}
    if type(given) is not list or not given:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    resource = _resource(model)[1:]
    requests = []
    for index, text in enumerate(given):
        if type(text) is not str:
            raise InvalidRequest(f"body.input.{index}: Gemini embeds texts, not tokens; send the text itself")
        requests.append({"model": resource, "content": {"parts": [{"text": text}]}, **options})
    return {"requests": requests}
