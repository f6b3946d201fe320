"""Wire protocols: pure functions of bytes, no I/O. One file a protocol.

A dialect turns the canonical request (an OpenAI body) into a call of its provider and the provider's bytes into the
canonical reply, chunks, or a typed error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engine.errors import InferenceError
from engine.facts import Facts
from engine.request import Chunk, RateHints, Usage


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
    """What it can carry."""

    def __init__(self, wall: Callable[[], float] = ...) -> None: ...

    def constant_headers(self, stream: bool) -> dict[str, str]:
        """What every call sends besides the key."""
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
        """Whether a reply with status 200 to a streaming call may be a stream; if not, `error` says what it is."""
        ...

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        """`show_usage` False: the caller did not ask for a chunk that holds nothing but the usage; the usage then comes
        with the chunk that ends the answer."""
        ...

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        """The typed error for a reply that is not what was asked for, whatever its status, with the provider's
        message, code and retry hint."""
        ...

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        """The provider's own id of the call."""
        ...

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        """What a reply's headers say of the key's limits; None: nothing."""
        ...

    def auth_headers(self, key: str) -> dict[str, str]: ...

    def probe(self) -> WireCall:
        """A cheap call that shows whether the endpoint and the key work."""
        ...

    def models(self, content: bytes) -> list[str] | None:
        """The models that a successful reply to `probe` lists; empty if it can't be read, None if a healthy service
        lists none."""
        ...


@dataclass(slots=True)
class Answer:
    """A server's reply to a question about itself."""

    status: int
    content: bytes


@runtime_checkable
class Asking(Protocol):
    """A dialect that can ask a server what it is, before its first call."""

    def questions(self, model: str) -> list[WireCall]:
        """The calls that ask for it."""
        ...

    def facts(self, model: str, answers: Sequence[Answer]) -> Facts:
        """What the replies say, one for each question. Never raises: what can't be read is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a server has got with a model that it fetches."""

    status: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    """0: not known."""
    error: str | None = None
    """Why it failed."""


class ProgressDecoder(Protocol):
    """Turns the bytes of a pull's reply into steps."""

    ended: bool
    """True once the server said that it has the model."""

    def feed(self, data: bytes) -> list[Progress]: ...


@runtime_checkable
class Pulling(Protocol):
    """A dialect whose servers fetch models when they are told to."""

    def pull(self, model: str) -> WireCall: ...

    def progress(self) -> ProgressDecoder: ...


@dataclass(slots=True)
class ClientCall:
    """A request as a client sent it to a server of ours, in the canonical form. Whoever asks an engine for it does so
    with `Request(…, media=INLINE_ONLY)`, so that a client can't name a file of this machine."""

    task: str
    body: dict[str, Any]
    stream: bool
    model: str | None
    """As the client named it, in the body or the path."""
    key: str | None
    """The key that it sent."""
    warnings: list[str] = field(default_factory=list)
    """What it asked for and the canonical form can't say."""
    reply_type: str = "application/json"
    """Content type of a whole reply."""


@runtime_checkable
class Describing(Protocol):
    """A server dialect with pages that say what the server and its models are, besides the list of models."""

    pages: frozenset[tuple[str, str]]
    """(method, path); a path may have parts in braces."""

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """Status and body of a page; `names` are the models that there are."""
        ...


class StreamEncoder(Protocol):
    """Turns canonical chunks into the bytes of one stream."""

    def chunk(self, chunk: Chunk) -> bytes:
        """The bytes for one chunk; may be empty."""
        ...

    def end(self) -> bytes:
        """What a true end needs: the last events and the terminator."""
        ...

    def failed(self, error: InferenceError) -> bytes:
        """What tells the client that the stream broke; no terminator follows."""
        ...


class ServerDialect(Protocol):
    """A wire protocol as a server speaks it: the other direction of a Dialect, also pure. Made with `cls()`."""

    routes: dict[tuple[str, str], str]
    """(method, path) → task; a path may have parts in braces, such as {model}. Task `models` lists the models."""
    stream_type: str
    """Content type of its streams."""

    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        """The canonical request. `parts` are what stood in the path's braces. Raises InvalidRequest."""
        ...

    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        """The body of a whole reply, from a canonical one."""
        ...

    def stream_encoder(self, call: ClientCall) -> StreamEncoder: ...

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (with the retry hint) and body of an error."""
        ...

    def models(self, names: list[str]) -> bytes:
        """The list of models."""
        ...
