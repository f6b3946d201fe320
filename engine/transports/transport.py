"""The HTTP port: everything that the engine knows about moving bytes. One adapter a client library.

An adapter raises only InferenceErrors: ConnectFailed (no connection, or it broke before the reply's headers), TimedOut
(connect or read), Truncated (it broke after the headers), Malformed (not HTTP, too many headers, an encoding that was
not requested, or larger than `max_body_bytes`). It never follows a redirect and never retries, with one exception: a
kept connection that is lost before the first byte of a reply was closed by its server in between, as HTTP allows (RFC
9112, section 9.6), so the call is sent once more on a new connection. Cancelling `open` or
`read`, and `aclose`, close the connection of an unfinished reply at once, so that the server sees the caller leave.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from engine.core import open_files
from engine.core.errors import Cancelled, ConnectFailed, InferenceError, Malformed, SetupError, TimedOut
from engine.core.watchdog import Watchdog
from engine.schemas.provider import TransportSpec
from engine.transports.no_proxy import is_direct

T = TypeVar("T")

KNOWN_URLS = 1024
"""The number of addresses that an adapter remembers; a target has a handful."""
MAX_HEADERS = 128
"""Header fields of a reply."""
MAX_INTERIM_BYTES = 256 * 1024
"""The limits until a reply's own headers are whole: interim replies (1xx), and the headers themselves."""


@dataclass(slots=True)
class HttpCall:
    """A request on the wire."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


class HttpReply(Protocol):
    """A reply whose headers have arrived. `headers` is requested lower-case names."""

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
        """Ends it for good: later calls fail with Cancelled."""
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


def proxy_for(scheme: str, host: str, spec: TransportSpec, port: int | None = None) -> str | None:
    """Returns the proxy that leads to a host, from the spec or else the environment; None without one."""
    proxy = spec.proxy
    if proxy is None and spec.trust_env:
        proxies = getproxies()
        port = port or {"https": 443, "http": 80}.get(scheme)
        if not proxy_bypass(host) and not is_direct(host, port, proxies.get("no", "")):
            proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


async def within(awaitable: Awaitable[T], limit_s: float, dog: Watchdog, late: Callable[[], InferenceError]) -> T:
    """Returns what the awaitable gives. Raises `late()` when it takes longer than the limit; cheaper than a timer a
    call."""
    watch = dog.watch()
    watch.until(asyncio.get_running_loop().time() + limit_s)
    try:
        found = await awaitable
    except asyncio.CancelledError as error:
        if watch.close():
            raise late() from error
        raise
    except BaseException:
        watch.close()
        raise
    watch.close()
    return found


# -- errors that both adapters raise -----------------------------------------------------------------------------------


def closed() -> Cancelled:
    """The error for a call after `aclose`, such as the retry of a request that was in flight then."""
    return Cancelled("the engine was closed while the request was in flight")


def too_large(limit_bytes: int, status: int) -> Malformed:
    """The error for a body that passes the limit."""
    return Malformed(f"the reply is larger than {limit_bytes} bytes (provider.transport.max_body_bytes)", status=status)


def no_connection(url: str, spec: TransportSpec) -> TimedOut:
    """The error for a server that can't be connected to in time."""
    return TimedOut(f"{origin(url)}: no connection within {spec.connect_s:g} s (provider.transport.connect_s)")


def no_reply(url: str, spec: TransportSpec) -> TimedOut:
    """The error for headers that don't come, or not to their end."""
    return TimedOut(f"{origin(url)}: no reply within {spec.read_s:g} s (provider.transport.read_s)")


def silent(url: str, spec: TransportSpec, status: int) -> TimedOut:
    """The error for a body that does not continue."""
    return TimedOut(
        f"{origin(url)}: silent for {spec.read_s:g} s in the middle of a reply (provider.transport.read_s)",
        status=status,
    )


def not_http(url: str) -> Malformed:
    """The error for what can't be read as HTTP/1.1, or has more headers than any server needs."""
    return Malformed(
        f"{origin(url)}: the reply is not HTTP, or its headers are broken or too large; "
        "check the scheme and the port of provider.base_url"
    )


def can_not_connect(url: str, cause: OSError | None, said: str, proxy: str | None = None) -> ConnectFailed:
    """Returns the error for a connection that can't be made, from the system's error, with the next step. `said` is
    used without a system error; `proxy` is the proxy that can't be reached."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted: {cause.verify_message}"
    else:
        why = (cause.strerror if cause else None) or said
    place = f"{origin(url)}: can't connect"
    if cause is not None and cause.errno in open_files.TOO_MANY:
        return ConnectFailed(f"{place}: {why}; {open_files.advice()}")
    if proxy is not None and not isinstance(cause, ssl.SSLError):
        return ConnectFailed(f"{place} to the proxy {origin(proxy)}: {why}; check provider.transport.proxy")
    return ConnectFailed(f"{place}: {why}; {_connect_step(cause)}")


_EXPIRED, _HOST_MISMATCH, _IP_MISMATCH = 10, 62, 64
"""X509_V_ERR_* of OpenSSL's x509_vfy.h."""


def _connect_step(cause: OSError | None) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code == _EXPIRED:
            return "its owner must renew it (or set this machine's clock)"
        if cause.verify_code in (_HOST_MISMATCH, _IP_MISMATCH):
            return "use the host name that it was made for in provider.base_url"
        return "set provider.transport.verify to the path of its CA bundle"
    if isinstance(cause, ssl.SSLError):
        return "does the server speak TLS on that port? check the scheme and the port of provider.base_url"
    return "is the server running there? check provider.base_url and provider.transport.proxy"


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
