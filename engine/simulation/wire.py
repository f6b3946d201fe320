"""The wire protocols of the simulated server: pure functions of bytes. One file a protocol beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.simulation.capacity import Level
from engine.simulation.provider import Failure, Plan


@dataclass(frozen=True, slots=True)
class Call:
    """A request as a client sent it."""

    task: str
    body: dict[str, Any]
    """In the canonical form."""
    stream: bool
    key: str | None
    model: str


@dataclass(frozen=True, slots=True)
class Head:
    """What all pieces of one answer have in common."""

    call: Call
    answer_id: str
    created: int
    """Seconds since 1970."""


class Wire(Protocol):
    """A wire protocol, as a server speaks it. Made with `cls(spec, model)`."""

    stream_type: str
    """Content type of a stream."""
    tasks: dict[str, str]
    """What each path is for; a path may have parts in braces, as aiohttp's routes have."""
    pages: dict[str, Callable[[], bytes]]
    """What each path that takes no request shows, such as the list of models."""

    def read(self, path: str, headers: Mapping[str, str], content: bytes) -> Call:
        """The request. Raises InvalidRequest."""
        ...

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The key that the client sent."""
        ...

    def whole(self, head: Head, plan: Plan) -> bytes:
        """The body of a reply."""
        ...

    def piece(self, head: Head, index: int) -> bytes:
        """A token of a stream, counted from the beginning of the answer, at 0."""
        ...

    def end(self, head: Head, plan: Plan, *, terminated: bool) -> bytes:
        """What ends a stream: the reason, the usage, and the terminator unless that is to be left out."""
        ...

    def garbled(self) -> bytes:
        """A piece of a stream, or a whole body, that no client can read."""
        ...

    def error(self, failure: Failure, wall_s: float) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a refusal."""
        ...

    def limit_headers(self, levels: Mapping[str, Level]) -> dict[str, str]:
        """What a served call's headers say of its key's limits."""
        ...
