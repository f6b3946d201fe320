"""The OpenAI wire: every operation that answers, and those that stand beside it at other servers (rerank, score).

The canonical form is this wire, so a body is passed on, not rebuilt. Source: OpenAI's API reference, "Chat",
"Completions (legacy)", "Embeddings", "Responses", "Moderations", "Images", "Audio" and "Streaming".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest, Malformed, Truncated
from engine.core.request import RateHints, Usage
from engine.core.stream import Chunk
from engine.core.task_table import TASKS, having
from engine.dialects.client import Reply, StreamDecoder, WireCall
from engine.dialects.codecs.sse import MAX_EVENT_BYTES, SseDecoder
from engine.dialects.common.error_body import excerpt, is_error, request_id
from engine.dialects.common.retry_hints import rate_hint
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.openai.errors import FINISH_FAILURES, error_from, typed_error
from engine.dialects.openai.event_stream import EventStreamDecoder, SpeechStreamDecoder
from engine.dialects.openai.multipart_forms import FILES, encode_form
from engine.dialects.openai.reply import finish_failure, is_empty, plain_reply, withheld, wrong_reply
from engine.dialects.openai.rerank import plain_documents, read_rerank
from engine.dialects.openai.score import read_scores, score_body
from engine.dialects.openai.usage import read_usage

_PATHS = having("path")
_READ = {"rerank": read_rerank, "sentence-similarity": read_scores}
"""Tasks whose replies have another form than OpenAI's."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_WITH_USAGE = {"include_usage": True}
_ANY = {"accept": "*/*"}


class OpenAIDialect:
    """The OpenAI wire."""

    tasks = frozenset(_PATHS)

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` gives the time now in seconds since the epoch, for retry hints that are dates."""
        self._wall = wall

    def constant_headers(self, stream: bool) -> dict[str, str]:
        accept = "text/event-stream, application/json" if stream else "application/json"
        return {"content-type": "application/json", "accept": accept}

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
                raise InvalidRequest(f"task: an answer to {task} can't be streamed")
            body = _streamed(task, body, model)
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
                "body.background", "a response that is made in the background would have to be asked for again"
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
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
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

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        kind = headers.get("content-type", "")
        # A server that names no type, or a general one, may still stream; these two never are one.
        return not (kind.startswith("application/json") or kind.startswith("text/html"))

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        if TASKS[task].stream == "choices":
            return OpenAIStreamDecoder(task, self._wall, show_usage=show_usage)
        if task == "speech":
            return SpeechStreamDecoder(self._wall)
        if not TASKS[task].ends:
            raise InvalidRequest(f"task: an answer to {task} can't be streamed")
        return EventStreamDecoder(task, self._wall)

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        return typed_error(status, headers, content, self._wall())

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        # Cerebras and Mistral name the window.
        wall_s = self._wall()
        requests = rate_hint(headers, "requests", wall_s) or rate_hint(headers, "req-minute", wall_s, 60.0)
        tokens = rate_hint(headers, "tokens", wall_s) or rate_hint(headers, "tokens-minute", wall_s, 60.0)
        return RateHints(requests, tokens) if requests or tokens else None

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def probe(self) -> WireCall:
        return WireCall("GET", "/models", b"")

    def models(self, content: bytes) -> list[str] | None:
        try:
            body = _decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        entries = body.get("data") if type(body) is dict else body  # Together sends the bare list.
        if type(entries) is not list:
            return []
        return [entry["id"] for entry in entries if type(entry) is dict and type(entry.get("id")) is str]


def _streamed(task: str, body: dict[str, Any], model: str) -> dict[str, Any]:
    body = {**body, "model": model}
    if task == "speech":  # it is always sent as it is made; `stream_format` says only how
        body.pop("stream", None)
        body.pop("stream_options", None)
        return body
    body["stream"] = True
    if TASKS[task].stream == "choices":
        options = body.get("stream_options")
        body["stream_options"] = {**options, **_WITH_USAGE} if isinstance(options, dict) else _WITH_USAGE
    return body


def _usage_of(body: Any) -> Usage | None:
    usage = body.get("usage") if type(body) is dict else None
    return read_usage(usage) if type(usage) is dict else None


class OpenAIStreamDecoder:
    """Chunks from a stream of server-sent events that `data: [DONE]` ends.

    Strict: a stream that ends without `[DONE]` is truncated, even after a finish reason, because the chunk with the
    usage comes later still and a proxy that lost its upstream ends just like this.
    """

    __slots__ = (
        "_answered",
        "_failure",
        "_filtered",
        "_held",
        "_seen",
        "_show_usage",
        "_sse",
        "_task",
        "_wall",
        "ended",
    )

    def __init__(self, task: str, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        self._sse = SseDecoder()
        self._show_usage = show_usage
        self._held: Chunk | None = None
        """The chunk that ends the answer, until it is known whether a chunk with the usage follows."""
        self._task = task
        self._wall = wall
        self._failure: InferenceError | None = None
        self._seen = False
        """A choice has come."""
        self._answered = False
        """Something of an answer has come."""
        self._filtered = False
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        for name, payload in self._sse.feed(data):
            if payload == b"[DONE]":
                self.ended = True
                return chunks
            if not payload:
                continue
            try:
                body = _decode(payload)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                self._refuse(name, None, payload)
                return chunks
            choices = body.get("choices") if type(body) is dict else None
            if name == b"error" or type(choices) is not list or body.get("error"):
                self._refuse(name, body, payload)
                return chunks
            if choices and not self._take(choices, payload):
                return chunks
            usage = body.get("usage")
            if usage is None and "x_groq" in body:
                usage = (body["x_groq"] or {}).get("usage")
            chunk = Chunk(body, read_usage(usage) if type(usage) is dict else None)
            if self._show_usage:
                chunks.append(chunk)
            else:
                self._pass(chunk, choices, chunks)
        if self._sse.oversized:
            self._fail(Malformed(f"the stream has an event of more than {MAX_EVENT_BYTES} bytes"))
        return chunks

    def _pass(self, chunk: Chunk, choices: list[Any], chunks: list[Chunk]) -> None:
        """Passes a chunk on, but not one that holds nothing but the usage."""
        held = self._held
        if not choices and held is not None:
            held.usage = chunk.usage or held.usage
            return
        if held is not None:
            chunks.append(held)
            self._held = None
        if choices and any(choice.get("finish_reason") for choice in choices):
            self._held = chunk
        else:
            chunks.append(chunk)

    def finish(self) -> list[Chunk]:
        if self._failure is not None:
            raise self._failure
        # The last empty line may be lost with the connection; the terminator itself is unmistakable.
        if not self.ended and self._sse.rest().strip() != b"[DONE]":
            after = "after its first chunks" if self._seen else "before its first chunk"
            raise Truncated(f"the stream ended {after}, without its [DONE]")
        self.ended = True
        if not self._seen:
            raise Malformed("the stream ended without any choice")
        if self._filtered and not self._answered:
            raise withheld()
        kept, self._held = self._held, None
        return [kept] if kept is not None else []

    def _take(self, choices: list[Any], payload: bytes) -> bool:
        """Notes what a chunk's choices say. False: they are a failure, which is kept for `finish`."""
        self._seen = True
        for choice in choices:
            if type(choice) is not dict:
                self._fail(Malformed(f"the stream has a choice that is not an object: {excerpt(payload)}"))
                return False
            reason = choice.get("finish_reason")
            if reason is not None:
                if reason in FINISH_FAILURES:
                    self._fail(finish_failure(choice, self._wall()))
                    return False
                self._filtered = self._filtered or reason == "content_filter"
            if not self._answered:
                self._answered = not is_empty(choice.get("text") if self._task != "chat" else choice.get("delta"))
        return True

    def _refuse(self, name: bytes, body: Any, payload: bytes) -> None:
        if name == b"error" or is_error(body):
            what = body if body is not None else excerpt(payload)
            self._fail(error_from(what, 200, {}, self._wall()))
        else:
            self._fail(Malformed(f"the stream has an event that is not a chunk: {excerpt(payload)}"))

    def _fail(self, failure: InferenceError) -> None:
        self._failure = failure
        self.ended = True
