"""Streams of Text Generation Inference: server-sent events, one a token; the last has the whole text.

Source: the server's OpenAPI document, `StreamResponse`, and its router (router/src/server.rs, `generate_stream`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from engine.core.errors import InferenceError, Malformed
from engine.core.stream import Chunk
from engine.dialects.codecs.sse import MAX_EVENT_BYTES, SseDecoder
from engine.dialects.common.error_body import excerpt
from engine.dialects.common.json_body import lenient, usage_body
from engine.dialects.common.json_stream import JsonStreamDecoder
from engine.dialects.openai.stream import OpenAIStreamDecoder
from engine.dialects.tgi import reply
from engine.dialects.tgi.errors import retyped_words, stream_error
from engine.schemas.provider import StreamEnd


class TgiStreamDecoder(JsonStreamDecoder):
    """Canonical chunks of a completion. The event with `generated_text` ends them; without it a stream is truncated."""

    __slots__ = ("_offset", "_show_usage", "_sse", "_wall")

    kind = "an event"
    last = "the event that has the generated_text"
    limit_bytes = MAX_EVENT_BYTES

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        super().__init__()
        self._sse = SseDecoder()
        self._wall = wall
        self._show_usage = show_usage
        self._offset = 0
        """Characters so far."""

    def _pieces(self, data: bytes) -> list[bytes]:
        return [payload for _, payload in self._sse.feed(data) if payload]

    def _rest(self) -> bytes:
        return self._sse.rest()

    def _oversized(self) -> bool:
        return self._sse.oversized

    def _ends(self, body: dict[str, Any]) -> bool:
        return type(body.get("generated_text")) is str

    def _take(self, payload: bytes, chunks: list[Chunk]) -> None:
        body = lenient(payload)
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
                choice["logprobs"] = reply.logprobs([token], [body["top_tokens"]], self._offset)
            self._offset += len(text)
            details = body.get("details") or {}
            usage = reply.usage_of_stream(details)
        except (KeyError, TypeError, AttributeError):
            self._fail(Malformed(f"the stream has an event that is not a token: {excerpt(payload)}"))
            return
        first = self._base is None
        if self._base is None:
            self._base = {"id": reply.reply_id(self._wall), **reply.head(self._wall)}
        done = body.get("generated_text") is not None
        if done:
            self.ended = True
            choice["finish_reason"] = reply.finish_reason(details.get("finish_reason"))
        if text or first or done:
            chunks.append(Chunk({**self._base, "choices": [choice]}))
        if done and usage is not None:
            if self._show_usage:
                shown = {**self._base, "choices": [], "usage": usage_body(usage)}
                chunks.append(Chunk(shown, usage))
            else:
                chunks[-1].usage = usage


class TgiChatDecoder:
    """Chunks of a chat, which goes by the server's OpenAI path, in the form that OpenAI gives them."""

    __slots__ = ("_called", "_inner")

    def __init__(
        self, wall: Callable[[], float] = time.time, *, show_usage: bool = True, end: StreamEnd = "finish"
    ) -> None:
        self._inner = OpenAIStreamDecoder("chat", wall, show_usage=show_usage, end=end)
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
            self._called = reply.mend_chat(chunk.body, "delta", self._called)
        return chunks
