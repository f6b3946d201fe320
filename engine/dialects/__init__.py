"""Wire protocols: pure functions of bytes, no I/O. One file a protocol.

A dialect turns the canonical request (an OpenAI body) into a call of its provider and the provider's bytes into the
canonical reply, chunks, or a typed error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.errors import InferenceError
from engine.request import Chunk, Usage


@dataclass(slots=True)
class WireCall:
    """A call without its host and its key."""

    method: str
    path: str
    """Joined to the provider's base_url."""
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """Parameters that were dropped because this protocol can't express them."""


@dataclass(slots=True)
class Reply:
    """A canonical reply."""

    body: dict[str, Any]
    usage: Usage | None = None
    provider_request_id: str | None = None


class StreamDecoder(Protocol):
    """Turns a stream's bytes, however they are cut, into chunks."""

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that are now complete. Raises InferenceError for a malformed or an error event; every chunk
        before it in `data` has then been put into the error's `chunks` attribute."""
        ...

    @property
    def ended(self) -> bool:
        """True once the terminator was seen; nothing further will come."""
        ...

    def finish(self) -> list[Chunk]:
        """Called at the end of the bytes. Raises Truncated when the terminator is missing."""
        ...


class Dialect(Protocol):
    """A wire protocol."""

    tasks: frozenset[str]
    """What it can carry."""

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        """The call for a canonical body. Raises InvalidRequest for what the protocol can't express."""
        ...

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """The canonical reply. Raises an InferenceError for every reply that is not a success."""
        ...

    def stream_decoder(self, task: str) -> StreamDecoder: ...

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        """The typed error for a reply with an error status, with the provider's message, code and retry hint."""
        ...

    def auth_headers(self, key: str) -> dict[str, str]: ...

    def probe(self) -> WireCall:
        """A cheap call that shows whether the endpoint and the key work."""
        ...
