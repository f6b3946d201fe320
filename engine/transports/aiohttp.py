"""The transport port over aiohttp: the cheapest on CPU of the mature clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yarl
from aiohttp.client_reqrep import RequestInfo
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.resolver import DefaultResolver
from multidict import CIMultiDict, CIMultiDictProxy

from engine.errors import ConnectFailed, InferenceError, InvalidRequest, Malformed, TimedOut, Truncated
from engine.transports import HttpCall, closed, connect_step, origin, tls_context, too_large
from engine.watchdog import Watchdog
from schemas.provider import TransportSpec

# Of the encodings that both adapters can decode within a bound.
_HEADERS = {"user-agent": "ipfs-accelerate", "accept-encoding": "gzip, deflate"}
_SMALL_BYTES = 1024 * 1024
"""A body of this size is read in one go, and must be here within the limit on silence."""
_KNOWN_URLS = 1024
"""How many addresses are remembered with their proxies; a target has a handful."""


class AiohttpTransport:
    """One client session, made at the first call, on the loop that runs then."""

    def __init__(self, spec: TransportSpec) -> None:
        self._spec = spec
        self._tls = tls_context(spec.verify)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._routes: dict[str, tuple[yarl.URL, str | None]] = {}
        self._reading: set[aiohttp.ClientResponse] = set()
        self._dog = Watchdog()
        """For the limits on silence: aiohttp's own sets and cancels a timer at each read."""

    async def open(self, call: HttpCall) -> AiohttpReply:
        session = self._session or self._start()
        watch = self._dog.watch()
        watch.until(asyncio.get_running_loop().time() + self._spec.read_s)
        try:
            url, proxy = self._routes.get(call.url) or self._route(call.url)
            response = await session.request(
                call.method, url, data=call.content, headers=call.headers, proxy=proxy, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            watch.close()
            raise _before_headers(error, call.url, self._spec) from error
        except asyncio.CancelledError as error:
            if watch.close():
                raise _no_reply(call.url, self._spec) from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        return AiohttpReply(response, self._spec, self._reading, self._dog)

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
        connector = aiohttp.TCPConnector(
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
            auto_decompress=True,
        )
        return self._session

    def _route(self, address: str) -> tuple[yarl.URL, str | None]:
        """An address as aiohttp wants it, and the proxy that leads there."""
        url, proxy = yarl.URL(address), self._spec.proxy
        if proxy is None and self._spec.trust_env and url.host is not None and not proxy_bypass(url.host):
            proxies = getproxies()
            proxy = proxies.get(url.scheme) or proxies.get("all")
        if proxy is not None:
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            if not proxy.startswith(("http://", "https://")):
                raise InvalidRequest(
                    "provider.transport.proxy: aiohttp speaks to HTTP proxies only; "
                    "set provider.transport.kind=httpx (needs httpx[socks]) or provider.transport.trust_env=false"
                )
        if len(self._routes) >= _KNOWN_URLS:
            self._routes.clear()
        self._routes[address] = route = (url, proxy)
        return route


class AiohttpReply:
    """A reply of aiohttp; its header names are looked up in any case."""

    __slots__ = ("_dog", "_reading", "_response", "_spec", "headers", "status")

    def __init__(
        self, response: aiohttp.ClientResponse, spec: TransportSpec, reading: set[aiohttp.ClientResponse], dog: Watchdog
    ) -> None:
        self._dog = dog
        self._response = response
        self._spec = spec
        self._reading = reading
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        length = self._response.content_length
        most = min(self._spec.max_body_bytes, _SMALL_BYTES)
        if length is not None and length <= most and "content-encoding" not in self.headers:
            self._reading.add(self._response)
            try:
                return await self._within(self._response.read())
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _after_headers(error, self._response, self._spec) from error
            finally:
                self._reading.discard(self._response)
        pieces = [piece async for piece in self.chunks()]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        response, limit, total = self._response, self._spec.max_body_bytes, 0
        content = response.content
        self._reading.add(response)
        try:
            while True:
                piece = await self._within(content.readany())
                if not piece:
                    break
                total += len(piece)
                if total > limit:
                    raise too_large(limit, response.status)
                yield piece
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _after_headers(error, response, self._spec) from error
        finally:
            self._reading.discard(response)
            # At the end of the body aiohttp has already given the connection back; anywhere else this closes it.
            response.close()

    async def _within(self, read: Awaitable[bytes]) -> bytes:
        """What a read gives. Raises TimedOut when it is silent for too long."""
        watch = self._dog.watch()
        watch.until(asyncio.get_running_loop().time() + self._spec.read_s)
        try:
            piece = await read
        except asyncio.CancelledError as error:
            if watch.close():
                raise _silent(self._response, self._spec) from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        return piece

    async def aclose(self) -> None:
        self._response.close()


class _Resolver(DefaultResolver):  # type: ignore[misc,valid-type]
    """The system's name resolution within the connect limit, which aiohttp applies to TCP and TLS only."""

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self._limit_s = limit_s

    async def resolve(self, *args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(self._limit_s):
            return await super().resolve(*args, **kwargs)


def _no_reply(url: str, spec: TransportSpec) -> TimedOut:
    return TimedOut(f"{origin(url)}: no reply within {spec.read_s:g} s (provider.transport.read_s)")


def _silent(response: aiohttp.ClientResponse, spec: TransportSpec) -> TimedOut:
    where, limit = origin(str(response.url)), f"{spec.read_s:g} s"
    return TimedOut(
        f"{where}: silent for {limit} in the middle of a reply (provider.transport.read_s)", status=response.status
    )


def _before_headers(error: Exception, url: str, spec: TransportSpec) -> InferenceError:
    where = origin(url)
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return TimedOut(f"{where}: no connection within {spec.connect_s:g} s (provider.transport.connect_s)")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return InvalidRequest(f"provider.base_url: {where} is not an HTTP address")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectFailed(f"{where}: can't connect: {_why(error)}; {connect_step(error.os_error)}")
    if isinstance(error, aiohttp.ClientResponseError):
        # Its repr shows the request's headers, and so the key; it stays in the chain of causes without them.
        info = error.request_info
        error.request_info = RequestInfo(info.url, info.method, CIMultiDictProxy(CIMultiDict()))
        error.args = ()
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return ConnectFailed(f"{where}: the proxy refused the connection (HTTP {error.status})")
        return Malformed(f"{where}: the reply is not HTTP")
    if isinstance(error, OSError | aiohttp.ClientConnectionError):
        return ConnectFailed(f"{where}: the connection broke before a reply ({type(error).__name__})")
    return Malformed(f"{where}: the reply can't be read ({type(error).__name__})")


def _after_headers(error: Exception, response: aiohttp.ClientResponse, spec: TransportSpec) -> InferenceError:
    where, status = origin(str(response.url)), response.status
    if isinstance(error.__cause__ or error, ContentEncodingError):
        return Malformed(f"{where}: the body does not have the content encoding it claims", status=status)
    if isinstance(error, ValueError):
        return Malformed(f"{where}: the body can't be decoded ({type(error).__name__})", status=status)
    return Truncated(f"{where}: the connection broke in the middle of a reply", status=status)


def _why(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    return cause.strerror or str(cause) or type(cause).__name__
