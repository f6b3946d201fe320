"""The HTTP port: everything that the engine knows about moving bytes. One adapter a client library.

An adapter raises only InferenceErrors: ConnectFailed (no connection, or it broke before the reply's headers), TimedOut
(connect or read), Truncated (it broke after the headers), Malformed (not HTTP, or larger than `max_body_bytes`).
It never follows a redirect and never retries. Cancelling `open` or `read`, and `aclose`, close the connection of an
unfinished reply at once, so that the server sees the caller leave.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from engine.errors import Cancelled, Malformed, SetupError
from schemas.provider import TransportSpec


@dataclass(slots=True)
class HttpCall:
    """A request on the wire."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


class HttpReply(Protocol):
    """A reply whose headers have arrived. `headers` is asked for lower-case names."""

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

    async def aclose(self) -> None:
        """Ends it for good: what is asked afterwards fails with Cancelled."""
        ...


def origin(url: str) -> str:
    """scheme://host:port of a URL, for messages: no path, no query, no user name or password."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "an address that can't be read"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def connect_step(cause: OSError | None) -> str:
    """What to do about a connection that can't be made."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "set provider.transport.verify to the path of its CA bundle"
    return "is the server running there? check provider.base_url and provider.transport.proxy"


def closed() -> Cancelled:
    """The error for a call after `aclose`, such as the retry of a request that was under way then."""
    return Cancelled("the engine was closed while the request was under way")


def too_large(limit_bytes: int, status: int) -> Malformed:
    """The error for a body that passes the limit."""
    return Malformed(f"the reply is larger than {limit_bytes} bytes (provider.transport.max_body_bytes)", status=status)


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """A client's TLS settings: the system's trust, none at all, or the CA bundle at a path. Raises SetupError."""
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if verify is True:
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        if paths.cafile is None and paths.capath is None:
            import certifi  # a Python built without the system's certificates, as on macOS

            context.load_verify_locations(certifi.where())
        return context
    path = Path(verify).expanduser()
    try:
        return ssl.create_default_context(
            cafile=None if path.is_dir() else path, capath=path if path.is_dir() else None
        )
    except OSError as error:
        reason = error.strerror or "not a PEM file"
        raise SetupError(f"provider.transport.verify: can't use {path} as a CA bundle: {reason}") from error
