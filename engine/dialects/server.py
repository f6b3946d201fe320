"""The port of server dialects: a client's wire request to canonical, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from engine.core.errors import InferenceError
from engine.core.stream import Chunk


@dataclass(slots=True)
class ClientCall:
    """A request as a client sent it to a server of ours, in the canonical form. The caller of an engine uses it
    with `Request(…, media=INLINE_ONLY)`, so that a client can't name a file of this machine."""

    task: str
    body: dict[str, Any]
    stream: bool
    model: str | None
    """As the client named it, in the body or the path."""
    key: str | None
    """The key that it sent."""
    warnings: list[str] = field(default_factory=list)
    """The parts of it that the canonical form can't express."""
    reply_type: str = "application/json"
    """Content type of a whole reply."""


@runtime_checkable
class Describing(Protocol):
    """A server dialect with pages that say what the server and its models are, in addition to the list of models."""

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
        """Returns what a true end needs: the last events and the terminator."""
        ...

    def failed(self, error: InferenceError) -> bytes:
        """Returns what tells the client that the stream broke; no terminator follows."""
        ...


class ServerDialect(Protocol):
    """A wire protocol as a server speaks it: the other direction of a Dialect, also pure. Made with `cls()`."""

    routes: dict[tuple[str, str], str]
    """(method, path) → task; a path may have parts in braces, such as {model}. Task `models` lists the models."""
    stream_type: str
    """Content type of its streams."""

    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        """The canonical request. `parts` are the texts in the path's braces. Raises InvalidRequest."""
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
