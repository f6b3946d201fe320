"""The OpenAI wire: chat completions, completions and embeddings; and the rerank that stands beside it.

The canonical form is this wire, so a body is passed on, not rebuilt. Source: OpenAI's API reference, "Chat",
"Completions (legacy)", "Embeddings" and "Streaming".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.dialects import Reply, StreamDecoder, WireCall
from engine.dialects.hints import rate_hint
from engine.dialects.openai_errors import (
    FINISH_FAILURES,
    error_from,
    excerpt,
    is_error,
    request_id,
    typed_error,
)
from engine.dialects.openai_rerank import plain_documents, read_rerank
from engine.dialects.openai_usage import read_usage
from engine.dialects.sse import MAX_EVENT_BYTES, SseDecoder
from engine.errors import ContentFiltered, InferenceError, InvalidRequest, Malformed, Truncated
from engine.request import Chunk, RateHints

_PATHS = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
    "rerank": "/rerank",
}
_NEVER_STREAMED = ("embedding", "rerank")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_WITH_USAGE = {"include_usage": True}


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
        if stream:
            if task in _NEVER_STREAMED:
                raise InvalidRequest(f"task: an answer to {task} can't be streamed")
            options = body.get("stream_options")
            options = {**options, **_WITH_USAGE} if isinstance(options, dict) else _WITH_USAGE
            body = {**body, "model": model, "stream": True, "stream_options": options}
        elif "stream" in body or "stream_options" in body:
            body = {**body, "model": model}
            body.pop("stream", None)
            # OpenAI refuses stream options where nothing is streamed.
            body.pop("stream_options", None)
        elif body.get("model") != model:
            body = {**body, "model": model}
        try:
            return WireCall("POST", path, _encode(body))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest(f"body: can't be written as JSON: {error}") from error

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        try:
            body = _decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(
                f"HTTP 200: the body is not JSON ({error}): {excerpt(content)}",
                status=status,
                provider_request_id=request_id(headers),
            ) from error
        if is_error(body) or (type(body) is not dict and task != "rerank"):
            raise self.error(status, headers, content)
        failure: InferenceError | None = None
        if task == "rerank":
            try:
                body = read_rerank(body, content)
            except Malformed as error:
                failure = error
        elif task == "embedding":
            failure = self._wrong_data(body, content)
        else:
            failure = self._wrong_choices(task, body, content)
        if failure is not None:
            failure.status = status
            failure.provider_request_id = request_id(headers)
            raise failure
        usage = body.get("usage")
        return Reply(body, read_usage(usage) if type(usage) is dict else None, request_id(headers))

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        kind = headers.get("content-type", "")
        # A server that names no type, or a general one, may still stream; these two never are one.
        return not (kind.startswith("application/json") or kind.startswith("text/html"))

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        return OpenAIStreamDecoder(task, self._wall, show_usage=show_usage)

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        return typed_error(status, headers, content, self._wall())

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        requests = rate_hint(headers, "requests")
        tokens = rate_hint(headers, "tokens")
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

    def _wrong_choices(self, task: str, body: dict[str, Any], content: bytes) -> InferenceError | None:
        """What is wrong with the choices of a reply, if anything."""
        choices = body.get("choices")
        if type(choices) is not list or not choices:
            return Malformed(f"HTTP 200: the reply has no choices: {excerpt(content)}")
        part = "message" if task == "chat" else "text"
        filtered = 0
        for choice in choices:
            if type(choice) is not dict:
                return Malformed(f"HTTP 200: a choice is not an object: {excerpt(content)}")
            reason = choice.get("finish_reason")
            answer = choice.get(part)
            if reason in FINISH_FAILURES or choice.get("error"):
                return _finish_failure(choice, self._wall())
            if reason == "content_filter" and _is_empty(answer):
                filtered += 1
            elif answer is None or (task == "chat" and type(answer) is not dict):
                return Malformed(f"HTTP 200: a choice has no {part}: {excerpt(content)}")
        if filtered == len(choices):
            return _filtered()
        return None

    def _wrong_data(self, body: dict[str, Any], content: bytes) -> InferenceError | None:
        """What is wrong with the vectors of a reply, if anything."""
        data = body.get("data")
        if type(data) is not list or not data:
            return Malformed(f"HTTP 200: the reply has no data: {excerpt(content)}")
        for item in data:
            if type(item) is not dict or not item.get("embedding"):
                return Malformed(f"HTTP 200: an embedding is missing: {excerpt(content)}")
        return None


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
            raise _filtered()
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
                    self._fail(_finish_failure(choice, self._wall()))
                    return False
                self._filtered = self._filtered or reason == "content_filter"
            if not self._answered:
                self._answered = not _is_empty(choice.get("text") if self._task != "chat" else choice.get("delta"))
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


def _is_empty(answer: Any) -> bool:
    """Whether a message, delta or text holds no part of an answer."""
    if type(answer) is not dict:
        return not answer
    return not any(answer.get(part) for part in ("content", "tool_calls", "refusal", "reasoning_content", "reasoning"))


def _filtered() -> ContentFiltered:
    return ContentFiltered("the provider's content filter withheld the answer", code="content_filter")


def _finish_failure(choice: dict[str, Any], wall_s: float) -> InferenceError:
    if choice.get("error"):
        return error_from({"error": choice["error"]}, 200, {}, wall_s)
    reason = choice["finish_reason"]
    return FINISH_FAILURES[reason](f"the provider stopped in the middle: finish_reason {reason}", code=reason)
