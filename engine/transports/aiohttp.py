"""The transport port over aiohttp: the cheapest on CPU of the mature clients."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import RequestInfo
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.resolver import DefaultResolver
from multidict import CIMultiDict, CIMultiDictProxy

from engine.core.errors import ConnectFailed, InferenceError, InvalidRequest, Malformed, Truncated
from engine.core.watchdog import Watchdog
from engine.schemas.provider import TransportSpec
from engine.transports.decoding import OFFERED, decoded, decoder_for
from engine.transports.transport import (
    KNOWN_URLS,
    MAX_HEADERS,
    HttpCall,
    can_not_connect,
    closed,
    no_connection,
    no_reply,
    not_http,
    origin,
    proxy_for,
    silent,
    tls_context,
    too_large,
    within,
)

_HEADERS = {"user-agent": "ipfs-accelerate", "accept-encoding": OFFERED}
_SMALL_BYTES = 1024 * 1024
"""A body of this size is read in one go, and must be here within the limit on silence."""
_MAX_INTERIM = 1024
"""Interim replies (1xx) before the real one."""


@dataclass(slots=True)
class _Route:
    """An address as aiohttp needs it, and the proxy that leads there."""

    url: yarl.URL
    proxy: str | None = None
    """Without its user name and password, which would be in the text of every error of the connection."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """The headers that a proxy for plain HTTP gets with each request."""
    proxy_headers: dict[str, str] | None = field(default=None, repr=False)
    """The request for a tunnel through a proxy."""


class AiohttpTransport:
    """One client session, made at the first call, on the loop that runs then."""

    def __init__(self, spec: TransportSpec) -> None:
        self._spec = spec
        self._tls = tls_context(spec.verify)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._routes: dict[str, _Route] = {}
        self._reading: set[aiohttp.ClientResponse] = set()
        self._dog = Watchdog()
        """For the limits on silence: aiohttp's own sets and cancels a timer at each read."""

    async def open(self, call: HttpCall) -> AiohttpReply:
        spec, route = self._spec, self._routes.get(call.url) or self._route(call.url)
        headers = call.headers if not route.headers else {**call.headers, **route.headers}
        reuse = _Reuse()
        _REUSE.set(reuse)
        while True:
            session = self._session or self._start()
            try:
                request = session.request(
                    call.method,
                    route.url,
                    data=call.content,
                    headers=headers,
                    proxy=route.proxy,
                    proxy_headers=route.proxy_headers,
                    allow_redirects=False,
                )
                response = await within(request, spec.read_s, self._dog, lambda: no_reply(call.url, spec))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if reuse.died(error):
                    reuse = _Reuse(allowed=False)
                    _REUSE.set(reuse)
                    continue
                raise _before_headers(error, call.url, spec, route.proxy) from error
            return AiohttpReply(response, call.url, spec, self._reading, self._dog)

    async def aclose(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            for response in list(self._reading):
                # Closing a session does not wake who waits for the rest of a body.
                response.content.set_exception(aiohttp.ServerDisconnectedError("the transport was closed"))
            await session.close()

    def _start(self) -> aiohttp.ClientSession:
        if self._closed:
            raise closed()
        spec = self._spec
        connector = _Connector(
            limit=spec.max_connections,
            limit_per_host=0,
            keepalive_timeout=spec.keepalive_s,
            force_close=spec.keepalive_s == 0,
            ssl=self._tls,
            resolver=_Resolver(spec.connect_s),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            # No total and no `connect`: these would count the wait for a free connection, which is the queue's matter.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=spec.connect_s, sock_read=None),
            # aiohttp's own reading of the environment opens ~/.netrc and lists the variables for every request, on a
            # thread: three times the cost of the request. `_route` does it once an address.
            trust_env=False,
            auto_decompress=False,  # it decodes without a bound
            response_class=_Response,
            max_headers=MAX_HEADERS,
        )
        return self._session

    def _route(self, address: str) -> _Route:
        try:
            url = yarl.URL(address)
        except ValueError:
            raise InvalidRequest(f"provider.base_url: {origin(address)} is not an HTTP address") from None
        route = _Route(url)
        proxy = proxy_for(url.scheme, url.host or "", self._spec, url.port)
        if proxy is not None:
            route = _proxied(url, proxy)
        if len(self._routes) >= KNOWN_URLS:
            self._routes.clear()
        self._routes[address] = route
        return route


class AiohttpReply:
    """A reply of aiohttp; its header names are looked up in any case."""

    __slots__ = ("_dog", "_reading", "_response", "_spec", "_url", "headers", "status")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        url: str,
        spec: TransportSpec,
        reading: set[aiohttp.ClientResponse],
        dog: Watchdog,
    ) -> None:
        self._dog = dog
        self._response = response
        self._url = url
        self._spec = spec
        self._reading = reading
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        response = self._response
        length = response.content_length
        most = min(self._spec.max_body_bytes, _SMALL_BYTES)
        if length is not None and length <= most and "content-encoding" not in self.headers:
            self._reading.add(response)
            try:
                return await within(response.read(), self._spec.read_s, self._dog, self._silent)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise self._broken() from error
            finally:
                self._reading.discard(response)
        pieces = [piece async for piece in self.chunks()]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        if "content-encoding" not in self.headers:
            return self._raw()
        encoding = ", ".join(self._response.headers.getall("content-encoding"))
        try:
            decoder = decoder_for(encoding, origin(self._url), self.status)
        except Malformed:
            self._response.close()
            raise
        if decoder is None:
            return self._raw()
        limit = self._spec.max_body_bytes
        return decoded(self._raw(), decoder, limit, too_large(limit, self.status))

    async def _raw(self) -> AsyncGenerator[bytes, None]:
        response, limit, total = self._response, self._spec.max_body_bytes, 0
        content, read_s, dog, late = response.content, self._spec.read_s, self._dog, self._silent
        self._reading.add(response)
        try:
            while True:
                piece = await within(content.readany(), read_s, dog, late)
                if not piece:
                    break
                total += len(piece)
                if total > limit:
                    raise too_large(limit, response.status)
                yield piece
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._broken() from error
        finally:
            self._reading.discard(response)
            # At the end of the body aiohttp has already given the connection back; anywhere else this closes it.
            response.close()

    def _silent(self) -> InferenceError:
        return silent(self._url, self._spec, self.status)

    def _broken(self) -> InferenceError:
        return Truncated(f"{origin(self._url)}: the connection broke in the middle of a reply", status=self.status)

    async def aclose(self) -> None:
        self._response.close()


class _Protocol(ResponseHandler):
    """A connection that notes the first byte of a reply."""

    heard = False
    """Bytes have come since the connection was taken."""

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)


@dataclass(slots=True)
class _Reuse:
    """The connection of one call, if it served other calls before."""

    allowed: bool = True
    """False: the call gets a new connection."""
    protocol: _Protocol | None = None

    def died(self, error: Exception) -> bool:
        """Returns true if a kept connection was lost before the first byte of the reply: the server had closed it."""
        lost = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError | aiohttp.ClientOSError)
        return lost and self.protocol is not None and not self.protocol.heard


_REUSE: ContextVar[_Reuse] = ContextVar("_REUSE")
"""Of the call in flight in this task: aiohttp hands nothing of a call to its connector."""


class _Connector(aiohttp.TCPConnector):
    """Notes which call got a kept connection; keeps none from a call that must have a new one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        reuse = _REUSE.get()
        connection = await super()._get(key, traces) if reuse.allowed else None
        if connection is not None and isinstance(connection.protocol, _Protocol):
            reuse.protocol = connection.protocol
            reuse.protocol.heard = False
        return connection


class _Response(aiohttp.ClientResponse):
    """A reply that does not wait through any number of interim ones, as aiohttp's own would."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        return await super().start(_Beginning(connection))  # type: ignore[arg-type]


class _Beginning:
    """A connection, or its protocol, that gives out so many heads of replies and no more."""

    __slots__ = ("_left", "_real")

    def __init__(self, real: Any) -> None:
        self._real = real
        self._left = _MAX_INTERIM

    @property
    def protocol(self) -> _Beginning | None:
        return None if self._real.protocol is None else _Beginning(self._real.protocol)

    async def read(self) -> Any:
        self._left -= 1
        if self._left < 0:
            raise HttpProcessingError(code=400, message="too many interim replies")
        return await self._real.read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Resolver(DefaultResolver):  # type: ignore[misc,valid-type]
    """The system's name resolution within the connect limit, which aiohttp applies to TCP and TLS only."""

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self._limit_s = limit_s

    async def resolve(self, *args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(self._limit_s):
            return await super().resolve(*args, **kwargs)


def _proxied(url: yarl.URL, proxy: str) -> _Route:
    try:
        address = yarl.URL(proxy)
    except ValueError:
        address = yarl.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidRequest(
            "provider.transport.proxy: aiohttp speaks to HTTP proxies only; "
            "set provider.transport.kind=httpx (needs httpx[socks]) or provider.transport.trust_env=false"
        )
    headers: dict[str, str] = {}
    if address.user is not None:
        login = f"{address.user}:{address.password or ''}"
        headers["proxy-authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    plain = str(address.with_user(None))
    return _Route(url, plain, proxy_headers=headers) if url.scheme == "https" else _Route(url, plain, headers)


def _before_headers(error: Exception, url: str, spec: TransportSpec, proxy: str | None) -> InferenceError:
    where = origin(url)
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return no_connection(url, spec)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return InvalidRequest(f"provider.base_url: {where} is not an HTTP address")
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        unreachable = proxy if isinstance(error, aiohttp.ClientProxyConnectionError) else None
        return can_not_connect(url, cause, str(cause) or type(cause).__name__, unreachable)
    if isinstance(error, aiohttp.ClientResponseError):
        # Its repr shows the request's headers, and so the key; it stays in the chain of causes without them.
        info = error.request_info
        error.request_info = RequestInfo(info.url, info.method, CIMultiDictProxy(CIMultiDict()))
        error.args = ()
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return ConnectFailed(
                f"{where}: the proxy refused the connection (HTTP {error.status}); check provider.transport.proxy"
            )
        return not_http(url)
    if isinstance(error, OSError | aiohttp.ClientConnectionError):
        return ConnectFailed(f"{where}: the connection broke before a reply ({type(error).__name__})")
    return Malformed(f"{where}: the reply can't be read ({type(error).__name__})")
