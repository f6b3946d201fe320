"""Wire protocols: pure functions of bytes, no I/O. One file a protocol.

A dialect turns the canonical request (an OpenAI body) into a call of its provider and the provider's bytes into the
canonical reply, chunks, or a typed error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engine.core.errors import InferenceError
from engine.core.request import RateHints
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.schemas.provider import StreamEnd


@dataclass(slots=True)
class WireCall:
    """A call without its host and its key."""

    method: str
    path: str
    """Joined to the provider's base_url."""
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    """Of this call only; what every call sends is in `Dialect.constant_headers`."""
    warnings: list[str] = field(default_factory=list)
    """Parameters that were dropped because this protocol can't express them."""


@dataclass(slots=True)
class Reply:
    """A canonical reply."""

    body: dict[str, Any]
    usage: Usage | None = None
    provider_request_id: str | None = None
    warnings: tuple[str, ...] = ()
    """Changes that made the reply strict JSON."""


class StreamDecoder(Protocol):
    """Turns a stream's bytes, however they are cut, into chunks.

    A failure never costs the chunks that came before it: `feed` returns these and sets `ended`, `finish` raises.
    """

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that are now complete. Never raises."""
        ...

    @property
    def ended(self) -> bool:
        """True once the terminator or a failure was seen; nothing further will come."""
        ...

    def finish(self) -> list[Chunk]:
        """Called at the end of the bytes or of the stream: what was kept until then. Raises the failure that was seen,
        or Truncated when the terminator is missing."""
        ...


class Dialect(Protocol):
    """A wire protocol. Made with `cls(wall)`, where `wall` gives the time now in seconds since the epoch."""

    tasks: frozenset[str]
    """The tasks that it can carry."""

    def __init__(self, wall: Callable[[], float] = ...) -> None: ...

    def constant_headers(self, stream: bool) -> dict[str, str]:
        """Returns what every call sends in addition to the key."""
        ...

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        """The call for a canonical body. Raises InvalidRequest for what the protocol can't express."""
        ...

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """The canonical reply. Raises an InferenceError for every reply that is not a success."""
        ...

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        """Returns True if a reply with status 200 to a streaming call may be a stream; if not, `error` says what it
        is."""
        ...

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        """`show_usage` False: the caller did not request a chunk that holds nothing but the usage; the usage then comes
        with the chunk that ends the answer."""
        ...

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        """The typed error for a reply that is not what was requested, whatever its status, with the provider's
        message, code and retry hint."""
        ...

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        """The provider's own id of the call."""
        ...

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        """Returns what a reply's headers say of the key's limits; None: nothing."""
        ...

    def auth_headers(self, key: str) -> dict[str, str]: ...

    def probe(self) -> WireCall:
        """A cheap call that shows whether the endpoint and the key work."""
        ...

    def models(self, content: bytes) -> list[str] | None:
        """The models that a successful reply to `probe` lists; empty if it can't be read, None if a healthy service
        lists none."""
        ...


@runtime_checkable
class ChoiceStreams(Protocol):
    """A dialect whose chat streams have OpenAI's form, of which servers disagree about the end."""

    stream_end: StreamEnd
    """As `provider.stream_end`; set before the first decoder is made."""
    stream_usage: bool
    """As `provider.fields.stream_usage`: whether a streaming call requests the usage."""
