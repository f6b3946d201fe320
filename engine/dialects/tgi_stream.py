"""Streams of Text Generation Inference: server-sent events, one a token; the last has the whole text.

Source: the server's OpenAPI document, `StreamResponse`, and its router (router/src/server.rs, `generate_stream`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from engine.dialects import tgi_reply
from engine.dialects.hf_errors import retyped_words, stream_error
from engine.dialects.openai import OpenAIStreamDecoder
from engine.dialects.openai_errors import excerpt
from engine.dialects.sse import MAX_EVENT_BYTES, SseDecoder
from engine.errors import InferenceError, Malformed, Truncated
from engine.request import Chunk

_decode = msgspec.json.Decoder().decode


class TgiStreamDecoder:
    """Canonical chunks of a completion. The event with `generated_text` ends them; without it a stream is truncated."""

    __slots__ = ("_base", "_failure", "_offset", "_show_usage", "_sse", "_wall", "ended")

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        self._sse = SseDecoder()
        self._wall = wall
        self._show_usage = show_usage
        self._base: dict[str, Any] | None = None
        """What all chunks share; made with the first one."""
        self._offset = 0
        """Characters so far."""
        self._failure: InferenceError | None = None
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        for _, payload in self._sse.feed(data):
            if payload:
                self._take(payload, chunks)
            if self.ended:
                return chunks
        if self._sse.oversized:
            self._fail(Malformed(f"the stream has an event of more than {MAX_EVENT_BYTES} bytes"))
        return chunks

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if not self.ended:
            # The last empty line may be lost with the connection; the whole text is unmistakable.
            rest = self._sse.rest()
            if _is_last(rest):
                self._take(rest, chunks)
        if self._failure is not None:
            raise self._failure
        if not self.ended:
            after = "after its first chunks" if self._base is not None else "before its first chunk"
            raise Truncated(f"the stream ended {after}, without the event that has the generated_text")
        return chunks

    def _take(self, payload: bytes, chunks: list[Chunk]) -> None:
        try:
            body = _decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            body = None
        if type(body) is dict and body.get("error"):
            self._fail(stream_error(body, self._wall()))
            return
        try:
            token = body["token"]
            text = "" if token.get("special") else token["text"]
            if type(text) is not str:
                raise TypeError("text")
            choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": None}
            if body.get("top_tokens") and not token.get("special"):
                choice["logprobs"] = tgi_reply.logprobs([token], [body["top_tokens"]], self._offset)
            self._offset += len(text)
            details = body.get("details") or {}
            usage = tgi_reply.usage_of_stream(details)
        except (KeyError, TypeError, AttributeError):
            self._fail(Malformed(f"the stream has an event that is no token: {excerpt(payload)}"))
            return
        first = self._base is None
        if self._base is None:
            self._base = {"id": tgi_reply.reply_id(self._wall), **tgi_reply.head(self._wall)}
        done = body.get("generated_text") is not None
        if done:
            self.ended = True
            choice["finish_reason"] = tgi_reply.finish_reason(details.get("finish_reason"))
        if text or first or done:
            chunks.append(Chunk({**self._base, "choices": [choice]}))
        if done and usage is not None:
            if self._show_usage:
                shown = {**self._base, "choices": [], "usage": tgi_reply.usage_body(usage)}
                chunks.append(Chunk(shown, usage))
            else:
                chunks[-1].usage = usage

    def _fail(self, failure: InferenceError) -> None:
        self._failure = failure
        self.ended = True


def _is_last(payload: bytes) -> bool:
    try:
        body = _decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return type(body) is dict and type(body.get("generated_text")) is str


class TgiChatDecoder:
    """Chunks of a chat, which goes by the server's OpenAI path, in the form that OpenAI gives them."""

    __slots__ = ("_called", "_inner")

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        self._inner = OpenAIStreamDecoder("chat", wall, show_usage=show_usage)
        self._called = False

    @property
    def ended(self) -> bool:
        return self._inner.ended

    def feed(self, data: bytes) -> list[Chunk]:
        return self._mended(self._inner.feed(data))

    def finish(self) -> list[Chunk]:
        try:
            return self._mended(self._inner.finish())
        except InferenceError as error:
            raise retyped_words(error) from error

    def _mended(self, chunks: list[Chunk]) -> list[Chunk]:
        for chunk in chunks:
            self._called = tgi_reply.mend_chat(chunk.body, "delta", self._called)
        return chunks
