"""The OpenAI wire: every operation that answers, and those that are next to it at other servers (rerank, score).

The canonical form is this wire, so a body is passed on, not rebuilt. Source: OpenAI's API reference, "Chat",
"Completions (legacy)", "Embeddings", "Responses", "Moderations", "Images", "Audio" and "Streaming".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest, Malformed
from engine.core.request import RateHints
from engine.core.task_table import TASKS, having
from engine.core.usage import Usage
from engine.dialects.client import Reply, StreamDecoder, WireCall
from engine.dialects.common.base import HttpDialect, unstreamable
from engine.dialects.common.boundary import DEFECTS, odd_reply
from engine.dialects.common.error_body import excerpt, is_error, request_id
from engine.dialects.common.json_body import UNREADABLE, lenient, names
from engine.dialects.common.retry_hints import rate_hint
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.openai.errors import typed_error
from engine.dialects.openai.event_stream import EventStreamDecoder, SpeechStreamDecoder
from engine.dialects.openai.multipart_forms import FILES, encode_form
from engine.dialects.openai.reply import plain_reply, wrong_reply
from engine.dialects.openai.rerank import plain_documents, read_rerank
from engine.dialects.openai.score import read_scores, score_body
from engine.dialects.openai.stream import OpenAIStreamDecoder
from engine.dialects.openai.usage import read_usage
from engine.schemas.provider import StreamEnd

_PATHS = having("path")
_READ = {"rerank": read_rerank, "sentence-similarity": read_scores}
"""Tasks whose replies have another form than OpenAI's."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_WITH_USAGE = {"include_usage": True}
_ANY = {"accept": "*/*"}


class OpenAIDialect(HttpDialect):
    """The OpenAI wire."""

    tasks = frozenset(_PATHS)
    list_path = "/models"
    typed_error = typed_error
    stream_end: StreamEnd = "finish"
    stream_usage = True

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        path = _PATHS.get(task)
        if path is None:
            raise InvalidRequest(f"task: {task!r} is not on the OpenAI wire; one of: {', '.join(_PATHS)}")
        if task == "rerank":
            body = plain_documents(body)
        elif task == "sentence-similarity":
            body = score_body(body)
        warnings: list[str] = []
        if stream:
            if TASKS[task].stream == "never":
                raise unstreamable(task)
            body = _streamed(task, body, model, self.stream_usage)
        elif "stream" in body or "stream_options" in body or "stream_format" in body:
            # OpenAI refuses stream options where nothing is streamed.
            aside = ("stream", "stream_options", "stream_format")
            body = {name: value for name, value in body.items() if name not in aside}
            body["model"] = model
        elif body.get("model") != model:
            body = {**body, "model": model}
        if task == "response" and body.get("background"):
            unsupported = Unsupported("a call that is waited for", drop_unsupported)
            unsupported.lose(
                "body.background", "a response that is made in the background would have to be requested again"
            )
            warnings = unsupported.warnings
            body = {name: value for name, value in body.items() if name != "background"}
        if task in FILES:
            return encode_form(task, path, body)
        try:
            call = WireCall("POST", path, _encode(body))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest(f"body: can't be written as JSON: {error}") from error
        if warnings:
            call.warnings = warnings
        if task == "speech":
            call.headers = _ANY
        return call

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        try:
            if status != 200:
                raise self.error(status, headers, content)
            failure: InferenceError | None = None
            body: Any = None
            try:
                body = plain_reply(task, headers, content) if TASKS[task].plain_replies else None
                if body is None:
                    body = _decode(content)
            except Malformed as error:
                failure = error
            except UNREADABLE as error:
                raise Malformed(
                    f"HTTP 200: the body is not JSON ({error}): {excerpt(content)}",
                    status=status,
                    provider_request_id=request_id(headers),
                ) from error
            if failure is None:
                if is_error(body) or (type(body) is not dict and task != "rerank"):
                    raise self.error(status, headers, content)
                if task in _READ:
                    try:
                        body = _READ[task](body, content)
                    except Malformed as error:
                        failure = error
                else:
                    failure = wrong_reply(task, body, content, self._wall())
            if failure is not None:
                failure.status = status
                failure.provider_request_id = request_id(headers)
                failure.usage = _usage_of(body)
                raise failure
            return Reply(body, _usage_of(body), request_id(headers))
        except DEFECTS as error:
            raise odd_reply(error, status, headers, content) from error

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        if TASKS[task].stream == "choices":
            return OpenAIStreamDecoder(task, self._wall, show_usage=show_usage, end=self.stream_end)
        if task == "speech":
            return SpeechStreamDecoder(self._wall)
        if not TASKS[task].ends:
            raise unstreamable(task)
        return EventStreamDecoder(task, self._wall)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        # Cerebras and Mistral name the window.
        wall_s = self._wall()
        requests = rate_hint(headers, "requests", wall_s) or rate_hint(headers, "req-minute", wall_s, 60.0)
        tokens = rate_hint(headers, "tokens", wall_s) or rate_hint(headers, "tokens-minute", wall_s, 60.0)
        return RateHints(requests, tokens) if requests or tokens else None

    def models(self, content: bytes) -> list[str] | None:
        body = lenient(content)
        return names(body.get("data") if type(body) is dict else body, "id")  # Together sends the bare list


def _streamed(task: str, body: dict[str, Any], model: str, with_usage: bool) -> dict[str, Any]:
    body = {**body, "model": model}
    if task == "speech":  # it is always sent as it is made; `stream_format` says only how
        body.pop("stream", None)
        body.pop("stream_options", None)
        return body
    body["stream"] = True
    if not with_usage:
        body.pop("stream_options", None)
    elif TASKS[task].stream == "choices":
        options = body.get("stream_options")
        body["stream_options"] = {**options, **_WITH_USAGE} if isinstance(options, dict) else _WITH_USAGE
    return body


def _usage_of(body: Any) -> Usage | None:
    usage = body.get("usage") if type(body) is dict else None
    return read_usage(usage) if type(usage) is dict else None
