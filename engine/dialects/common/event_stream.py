"""The base of decoders of server-sent events: the loop over events, and the one way to fail."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from engine.core.errors import InferenceError, Malformed
from engine.core.stream import Chunk
from engine.dialects.codecs.sse import MAX_EVENT_BYTES, SseDecoder
from engine.dialects.common.boundary import DEFECTS, odd_event
from engine.dialects.common.json_body import UNREADABLE, lenient

_decode = msgspec.json.Decoder().decode


class EventDecoder(ABC):
    """Canonical chunks from events; a subclass reads one event."""

    __slots__ = ("_failure", "_sse", "ended")

    skips_empty: ClassVar[bool] = True
    """False: events without data are read, too."""

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._failure: InferenceError | None = None
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if not self.ended:
            self._read(self._sse.feed(data), chunks)
        return chunks

    def _read(self, events: Sequence[tuple[bytes, bytes]], chunks: list[Chunk]) -> None:
        """Adds the chunks of events, up to the end of the stream or its first failure."""
        for name, payload in events:
            if payload or not self.skips_empty:
                try:
                    self._event(name, payload, chunks)
                except DEFECTS as error:
                    failure = self._again(error, payload, chunks)
                    if failure is not None:
                        self._fail(failure)
                if self.ended:
                    return
        self._check_size()

    def _check_size(self) -> None:
        if self._sse.oversized:
            self._fail(Malformed(f"the stream has an event of more than {MAX_EVENT_BYTES} bytes"))

    def _again(self, error: Exception, payload: bytes, chunks: list[Chunk]) -> InferenceError | None:
        """Reads an event that raised `error` once more, if there is a way. Returns the failure, if there is one."""
        return odd_event(error, payload)

    def _fail(self, failure: InferenceError) -> None:
        """Ends the stream with a failure, which `finish` raises."""
        self._failure = failure
        self.ended = True

    @abstractmethod
    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        """Adds an event's chunks, and notes an end or a failure. May raise any of DEFECTS."""


class JsonEventDecoder(EventDecoder):
    """Canonical chunks from events of JSON; an event that is not strict JSON is read leniently."""

    __slots__ = ("_head", "_show_usage", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        super().__init__()
        self._wall = wall
        self._show_usage = show_usage
        self._head: dict[str, Any] | None = None
        """The fields of every chunk, once the first event of the answer has come."""

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        self._take(_decode(payload), chunks)

    def _again(self, error: Exception, payload: bytes, chunks: list[Chunk]) -> InferenceError | None:
        body = lenient(payload) if isinstance(error, UNREADABLE) else None
        if body is None:
            return odd_event(error, payload)
        try:
            self._take(body, chunks)
        except DEFECTS as another:
            return odd_event(another, payload)
        return None

    @abstractmethod
    def _take(self, body: Any, chunks: list[Chunk]) -> None:
        """Adds the chunks of an event's JSON, and notes an end or a failure. May raise any of DEFECTS."""
