"""Ports of dialects that have a server describe itself, or make it fetch a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.core.server_info import ServerInfo
from engine.dialects.client import WireCall


@dataclass(slots=True)
class DiscoveryReply:
    """A server's reply to a question about itself."""

    status: int
    content: bytes


@runtime_checkable
class Discovery(Protocol):
    """A dialect that can have a server describe itself before its first call."""

    def questions(self, model: str) -> list[WireCall]:
        """The calls that request it."""
        ...

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        """Returns what the replies say, one for each question. Never raises: what can't be read is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a server with a model that it fetches."""

    status: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    """0: not known."""
    error: str | None = None
    """The reason why it failed."""


class ProgressDecoder(Protocol):
    """Turns the bytes of a pull's reply into steps."""

    ended: bool
    """True once the server said that it has the model."""

    def feed(self, data: bytes) -> list[Progress]: ...


@runtime_checkable
class ModelPull(Protocol):
    """A dialect whose servers fetch models on request."""

    def pull(self, model: str) -> WireCall: ...

    def progress(self) -> ProgressDecoder: ...
