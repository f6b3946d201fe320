"""A megaservice's stream: server-sent events, each with a piece of text as Python writes bytes, `data: b'Hel'`.

Source: OPEA's GenAIExamples, ChatQnA/chatqna.py (align_generator); GenAIComps 1.5, comps/cores/mega/orchestrator.py
(token_generator, fake_stream). Some megaservices pass their model's chunks on instead, in OpenAI's form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.errors import InferenceError, Malformed, ServerFailed, Truncated
from engine.core.stream import Chunk
from engine.dialects.codecs.sse import MAX_EVENT_BYTES, SseDecoder
from engine.dialects.common.error_body import excerpt, is_error
from engine.dialects.common.json_body import UNREADABLE
from engine.dialects.openai.errors import error_from
from engine.dialects.openai.stream import OpenAIStreamDecoder
from engine.schemas.provider import StreamEnd

_ESCAPE = re.compile(rb"\\(?:x[0-9a-f]{2}|[\\'\"nrt])")
_ESCAPES = {b"\\x%02x" % byte: bytes((byte,)) for byte in range(256)} | {
    b"\\\\": b"\\", b"\\'": b"'", b'\\"': b'"', b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t",
}  # fmt: skip


class OpeaStreamDecoder:
    """Chunks from a stream of pieces of text that `data: [DONE]` ends.

    A megaservice sends that terminator also where what it calls failed: without any piece of text it is a failure.
    Neither the reason of the end nor the usage is said.
    """

    __slots__ = ("_chat", "_failure", "_first", "_head", "_openai", "_raw", "_rest", "_sse", "_wall", "ended")

    def __init__(self, wall: Callable[[], float], *, show_usage: bool = True, end: StreamEnd = "finish") -> None:
        self._wall = wall
        self._sse = SseDecoder()
        self._rest = b""
        """The beginning of a character that continues in the next piece."""
        self._raw: list[bytes] | None = []
        """The bytes until the first event, which says whose form the stream has."""
        self._openai = OpenAIStreamDecoder("chat", wall, show_usage=show_usage, end=end)
        self._chat = False
        """The stream has OpenAI's form."""
        now_s = wall()
        self._head = {
            "id": f"chatcmpl-{int(now_s * 1e6)}",
            "object": "chat.completion.chunk",
            "created": int(now_s),
            "model": "",
        }
        self._first = True
        self._failure: InferenceError | None = None
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        if self._chat:
            return self._pass(data)
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        if self._raw is not None:
            self._raw.append(data)
        for _, payload in self._sse.feed(data):
            if self._raw is not None:
                raw, self._raw = b"".join(self._raw), None
                self._chat = payload.startswith(b"{") and b'"choices"' in payload
                if self._chat:
                    return self._pass(raw)
            if payload == b"[DONE]":
                self.ended = True
                return chunks
            if payload.startswith(b"{") and self._is_failure(payload):
                return chunks
            try:
                text = self._decoded(_piece(payload))
            except UnicodeDecodeError:
                self._fail(Malformed(f"the stream has a piece that is not UTF-8: {excerpt(payload)}"))
                return chunks
            if text:
                chunks.append(self._chunk({"content": text}))
        if self._sse.oversized:
            self._fail(Malformed(f"the stream has an event of more than {MAX_EVENT_BYTES} bytes"))
        return chunks

    def finish(self) -> list[Chunk]:
        if self._chat:
            return self._openai.finish()
        if self._failure is not None:
            raise self._failure
        # The last empty line may be lost with the connection; the terminator itself is unmistakable.
        if not self.ended and self._sse.rest().strip() != b"[DONE]":
            after = "before its first piece" if self._first else "after its first pieces"
            raise Truncated(f"the stream ended {after}, without its [DONE]")
        self.ended = True
        if self._first:
            raise ServerFailed("the megaservice ended without any answer: a service that it calls has failed")
        if self._rest:
            raise Truncated("the stream ended within a character")
        return [self._chunk({}, "stop")]

    def _pass(self, data: bytes) -> list[Chunk]:
        chunks = self._openai.feed(data)
        self.ended = self._openai.ended
        return chunks

    def _decoded(self, piece: bytes) -> str:
        piece = self._rest + piece
        try:
            text = piece.decode()
            self._rest = b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                raise
            self._rest = piece[error.start :]
            text = piece[: error.start].decode()
        return text

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
        if self._first:
            self._first = False
            delta = {"role": "assistant", **delta}
        return Chunk({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    def _is_failure(self, payload: bytes) -> bool:
        """Returns True if an event is an error, which is kept for `finish`; any other object is a piece of the
        answer."""
        try:
            body = msgspec.json.decode(payload)
        except UNREADABLE:
            return False
        if not is_error(body):
            return False
        self._fail(error_from(body, 200, {}, self._wall()))
        return True

    def _fail(self, failure: InferenceError) -> None:
        self._failure = failure
        self.ended = True


def _piece(payload: bytes) -> bytes:
    """The text of an event: out of Python's notation for bytes, or the event as it is."""
    if len(payload) < 3 or payload[:2] not in (b"b'", b'b"') or payload[-1] != payload[1]:
        return payload
    inner = payload[2:-1]
    return _ESCAPE.sub(_unescaped, inner) if b"\\" in inner else inner


def _unescaped(found: re.Match[bytes]) -> bytes:
    return _ESCAPES[found[0]]
