"""A stream of JSON objects, the last of which says that it is: what Ollama's and TGI's have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from engine.core.errors import InferenceError, Malformed, Truncated
from engine.core.stream import Chunk
from engine.dialects.common.boundary import DEFECTS, odd_event
from engine.dialects.common.json_body import lenient


class JsonStreamDecoder(ABC):
    """Canonical chunks from pieces of JSON; a stream that ends without its last piece is truncated."""

    __slots__ = ("_base", "_failure", "ended")

    kind: ClassVar[str]
    """The name of a piece in messages."""
    last: ClassVar[str]
    """Which piece is the last one, in messages."""
    limit_bytes: ClassVar[int]

    def __init__(self) -> None:
        self._base: dict[str, Any] | None = None
        """The fields that all chunks share; made with the first one."""
        self._failure: InferenceError | None = None
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        for piece in self._pieces(data):
            try:
                self._take(piece, chunks)
            except DEFECTS as error:
                self._fail(odd_event(error, piece))
            if self.ended:
                return chunks
        if self._oversized():
            self._fail(Malformed(f"the stream has {self.kind} of more than {self.limit_bytes} bytes"))
        return chunks

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if not self.ended:
            # What closes a piece may be lost with the connection; the last piece itself is unmistakable.
            rest = self._rest()
            body = lenient(rest)
            if type(body) is dict and self._ends(body):
                chunks += self.feed(b"\n\n")
        if self._failure is not None:
            raise self._failure
        if not self.ended:
            after = "after its first chunks" if self._base is not None else "before its first chunk"
            raise Truncated(f"the stream ended {after}, without {self.last}")
        return chunks

    def _fail(self, failure: InferenceError) -> None:
        self._failure = failure
        self.ended = True

    @abstractmethod
    def _pieces(self, data: bytes) -> list[bytes]:
        """The pieces that are now complete."""

    @abstractmethod
    def _rest(self) -> bytes:
        """Returns what was not closed when the bytes ended."""

    @abstractmethod
    def _oversized(self) -> bool:
        """Returns True if a piece passed the limit."""

    @abstractmethod
    def _take(self, piece: bytes, chunks: list[Chunk]) -> None:
        """Adds a piece's chunks, and notes an end or a failure."""

    @abstractmethod
    def _ends(self, body: dict[str, Any]) -> bool:
        """Returns True if a piece is the last one."""
