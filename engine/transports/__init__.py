"""The HTTP port: everything that the engine knows about moving bytes. One adapter a client library.

An adapter raises only InferenceErrors: ConnectFailed (no connection, or it broke before the reply's headers), TimedOut
(connect or read), Truncated (it broke after the headers), Malformed (not HTTP, or larger than `max_body_bytes`).
It never follows a redirect and never retries. Cancelling `open` or `read`, and `aclose`, close the connection of an
unfinished reply at once, so that the server sees the caller leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from schemas.provider import TransportSpec


@dataclass(slots=True)
class HttpCall:
    """A request on the wire."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None


class HttpReply(Protocol):
    """A reply whose headers have arrived. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The whole body, decoded from its content encoding; the connection goes back to the pool."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decoded from its content encoding."""
        ...

    async def aclose(self) -> None:
        """Leaves the reply; an unfinished one closes its connection at once."""
        ...


class Transport(Protocol):
    """An HTTP client. Made with `cls(spec)`; used on one event loop."""

    def __init__(self, spec: TransportSpec) -> None: ...

    async def open(self, call: HttpCall) -> HttpReply: ...

    async def aclose(self) -> None: ...
