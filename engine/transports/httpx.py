"""The transport port over httpx: its connections (httpcore), or any httpx transport, such as ASGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import httpcore
import httpx

from engine.core.errors import ConnectFailed, InferenceError, InvalidRequest, Malformed, Truncated
from engine.core.watchdog import Watchdog
from engine.schemas.provider import TransportSpec
from engine.transports.connection_pool import GuardedBackend, HeadGuard, Lane, Lanes, Pool
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
_BROKEN = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpx.HTTPError,
    OSError,
)
_LOST = (httpcore.NetworkError, httpcore.RemoteProtocolError)


@dataclass(slots=True)
class _Route:
    """An address as httpcore needs it, and how to get there."""

    url: httpcore.URL
    host: bytes
    origin: str
    proxy: str | None = field(repr=False)


class HttpxTransport:
    """Lanes of one connection each, made when they are needed. `transport` replaces the network: an ASGI application,
    for one."""

    def __init__(self, spec: TransportSpec, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._spec = spec
        self._tls = tls_context(spec.verify)
        self._foreign = _Foreign(transport) if transport is not None else None
        self._lanes = Lanes(spec.max_connections, spec.keepalive_s)
        self._routes: dict[str, _Route] = {}
        # No `read` and no `write`: the watchdog holds these limits, for less. No `pool`: that is the queue's matter.
        self._limits = {"timeout": {"connect": spec.connect_s}}
        self._dog = Watchdog()
        self._closed = False

    async def open(self, call: HttpCall) -> HttpxReply:
        if self._closed:
            raise closed()
        spec = self._spec
        route = self._routes.get(call.url) or self._route(call.url)
        request = httpcore.Request(
            call.method,
            route.url,
            headers=_wire_headers(route.host, call),
            content=call.content or b"",
            extensions=self._limits,
        )
        lane = await self._lanes.take(route.origin, lambda guard: self._pool(route, guard))
        try:
            try:
                response = await self._answer(lane, request, call)
            except _LOST:
                if self._foreign is not None or lane.guard.connected or not lane.guard.silent:
                    raise
                # A kept connection that its server had closed. httpcore has dropped it: this one is new.
                response = await self._answer(lane, request, call)
        except _BROKEN as error:
            await self._lanes.give(lane)
            raise _before_headers(error, call.url, spec, route.proxy) from error
        except BaseException:
            await self._lanes.give(lane)
            raise
        lane.guard.waiting = False
        reply = HttpxReply(response, call.url, spec, lane, self._lanes, self._dog)
        if len(response.headers) > MAX_HEADERS or (lane.guard.silent and self._foreign is None):
            # Silent: it was read from what followed the last reply, so it answers no request.
            await reply.aclose()
            raise not_http(call.url)
        return reply

    async def _answer(self, lane: Lane, request: httpcore.Request, call: HttpCall) -> httpcore.Response:
        lane.guard.begin()
        answer = lane.pool.handle_async_request(request)
        return await within(answer, self._spec.read_s, self._dog, lambda: no_reply(call.url, self._spec))

    async def aclose(self) -> None:
        self._closed = True
        await self._lanes.aclose()

    def _route(self, address: str) -> _Route:
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidRequest(f"provider.base_url: {origin(address)} is not an HTTP address")
        parts = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        proxy = None if self._foreign else proxy_for(url.scheme, url.host, self._spec, url.port)
        if len(self._routes) >= KNOWN_URLS:
            self._routes.clear()
        self._routes[address] = route = _Route(parts, url.netloc, origin(address), proxy)
        return route

    def _pool(self, route: _Route, guard: HeadGuard) -> Pool:
        if self._foreign is not None:
            return self._foreign
        keep = self._spec.keepalive_s
        settings: dict[str, Any] = {
            "ssl_context": self._tls,
            "max_connections": 1,
            "max_keepalive_connections": 1 if keep else 0,
            "keepalive_expiry": keep,
            "network_backend": GuardedBackend(guard),
        }
        if route.proxy is None:
            return httpcore.AsyncConnectionPool(**settings)
        try:
            proxy = httpx.Proxy(route.proxy)
        except (ValueError, httpx.InvalidURL):
            # The message may show the proxy, with a password: left out.
            raise _unusable_proxy() from None
        address = httpcore.URL(
            scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
        )
        if proxy.url.scheme in ("http", "https"):
            if proxy.url.scheme == "https":
                settings["proxy_ssl_context"] = self._tls
            return httpcore.AsyncHTTPProxy(address, proxy_auth=proxy.raw_auth, **settings)
        if find_spec("socksio") is None:
            raise _unusable_proxy()
        return httpcore.AsyncSOCKSProxy(address, proxy_auth=proxy.raw_auth, **settings)


class HttpxReply:
    """A reply of httpx."""

    __slots__ = ("_dog", "_lane", "_lanes", "_response", "_spec", "_url", "headers", "status")

    def __init__(
        self, response: httpcore.Response, url: str, spec: TransportSpec, lane: Lane, lanes: Lanes, dog: Watchdog
    ) -> None:
        self._dog = dog
        self._lane: Lane | None = lane
        self._lanes = lanes
        self._response = response
        self._url = url
        self._spec = spec
        self.status: int = response.status
        self.headers: Mapping[str, str] = _readable(response.headers)

    async def read(self) -> bytes:
        pieces = [piece async for piece in self.chunks()]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        encoding = self.headers.get("content-encoding")
        return self._raw() if encoding is None else self._decoded(encoding)

    async def _decoded(self, encoding: str) -> AsyncIterator[bytes]:
        limit = self._spec.max_body_bytes
        try:
            decoder = decoder_for(encoding, origin(self._url), self.status)
        except Malformed:
            await self.aclose()
            raise
        body = self._raw()
        if decoder is not None:
            body = decoded(body, decoder, limit, too_large(limit, self.status))
        async with aclosing(body):
            async for piece in body:
                yield piece

    async def _raw(self) -> AsyncGenerator[bytes, None]:
        limit, total = self._spec.max_body_bytes, 0
        read_s, dog, late = self._spec.read_s, self._dog, self._silent
        pieces = self._response.aiter_stream().__aiter__()
        try:
            while True:
                try:
                    piece = await within(anext(pieces), read_s, dog, late)
                except StopAsyncIteration:
                    break
                total += len(piece)
                if total > limit:
                    raise too_large(limit, self.status)
                yield piece
        except _BROKEN as error:
            where = origin(self._url)
            raise Truncated(f"{where}: the connection broke in the middle of a reply", status=self.status) from error
        finally:
            await self.aclose()

    def _silent(self) -> InferenceError:
        return silent(self._url, self._spec, self.status)

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        try:
            await self._response.aclose()
        finally:
            await self._lanes.give(lane)


class _Foreign:
    """An httpx transport with httpcore's interface."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        url = request.url
        address = httpx.URL(scheme=url.scheme.decode(), host=url.host.decode(), port=url.port, raw_path=url.target)
        assert isinstance(request.stream, AsyncIterable)
        content = b"".join([piece async for piece in request.stream])
        asked = httpx.Request(request.method.decode(), address, headers=request.headers, content=content)
        response = await self._transport.handle_async_request(asked)
        assert isinstance(response.stream, AsyncIterable)
        return httpcore.Response(response.status_code, headers=response.headers.raw, content=response.stream)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _wire_headers(host: bytes, call: HttpCall) -> list[tuple[bytes, bytes]]:
    headers = [(b"host", host)]
    headers += [(name.encode(), value.encode()) for name, value in {**_HEADERS, **call.headers}.items()]
    if call.content is not None or call.method in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", str(len(call.content or b"")).encode()))
    return headers


def _readable(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields by lower-case name; what comes twice is joined (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _unusable_proxy() -> InvalidRequest:
    return InvalidRequest(
        "provider.transport.proxy: httpx can't use it; expected http://host:port, "
        "or socks5://host:port with httpx[socks] installed"
    )


def _before_headers(error: Exception, url: str, spec: TransportSpec, proxy: str | None) -> InferenceError:
    where = origin(url)
    if isinstance(error, httpcore.ConnectTimeout):
        return no_connection(url, spec)
    if isinstance(error, httpcore.ConnectError):
        return can_not_connect(url, _os_error(error), str(error) or type(error).__name__, proxy)
    if isinstance(error, httpcore.ProxyError):
        return ConnectFailed(f"{where}: the proxy refused the connection ({error}); check provider.transport.proxy")
    if isinstance(error, httpcore.RemoteProtocolError) and "disconnected" not in str(error):
        return not_http(url)
    if isinstance(error, httpcore.LocalProtocolError):
        return Malformed(f"{where}: the reply can't be read ({type(error).__name__})")
    return ConnectFailed(f"{where}: the connection broke before a reply ({type(error).__name__})")


def _os_error(error: BaseException) -> OSError | None:
    """The system's error at the bottom of httpcore's."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None or isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
