"""The transport port over httpx: takes any httpx transport, such as ASGI."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from engine.errors import ConnectFailed, InferenceError, InvalidRequest, Malformed, TimedOut, Truncated
from engine.transports import HttpCall, closed, connect_step, origin, tls_context, too_large
from schemas.provider import TransportSpec

_HEADERS = {"user-agent": "ipfs-accelerate", "accept-encoding": "gzip, deflate"}


class HttpxTransport:
    """One client, made at the first call. `transport` replaces the network: an ASGI application, for one."""

    def __init__(self, spec: TransportSpec, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._spec = spec
        self._tls = tls_context(spec.verify)
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._closed = False

    async def open(self, call: HttpCall) -> HttpxReply:
        client = self._client or self._start()
        try:
            request = client.build_request(call.method, call.url, content=call.content, headers=dict(call.headers))
            response = await client.send(request, stream=True, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _before_headers(error, call.url, self._spec) from error
        return HttpxReply(response, self._spec)

    async def aclose(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _start(self) -> httpx.AsyncClient:
        if self._closed:
            raise closed()
        spec = self._spec
        try:
            self._client = self._made(spec)
        except (ImportError, ValueError) as error:
            # httpx reads the environment's proxies here. Its message may show one, with a password: left out.
            raise InvalidRequest(
                f"provider.transport.proxy: httpx can't use it ({type(error).__name__}); expected http://host:port, "
                "or socks5://host:port with httpx[socks] installed"
            ) from None
        return self._client

    def _made(self, spec: TransportSpec) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self._transport,
            verify=self._tls,
            headers=_HEADERS,
            # A jar whose policy takes nothing: a provider's cookie must not tie one request to another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # `pool` is the wait for a free connection, which is the queue's matter.
            timeout=httpx.Timeout(connect=spec.connect_s, read=spec.read_s, write=spec.read_s, pool=None),
            limits=httpx.Limits(
                max_connections=spec.max_connections,
                max_keepalive_connections=None if spec.keepalive_s else 0,
                keepalive_expiry=spec.keepalive_s,
            ),
            trust_env=spec.trust_env,
            proxy=spec.proxy,
            follow_redirects=False,
        )


class HttpxReply:
    """A reply of httpx."""

    __slots__ = ("_response", "_spec", "headers", "status")

    def __init__(self, response: httpx.Response, spec: TransportSpec) -> None:
        self._response = response
        self._spec = spec
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        response, limit, total = self._response, self._spec.max_body_bytes, 0
        try:
            async for piece in response.aiter_bytes():
                total += len(piece)
                if total > limit:
                    raise too_large(limit, response.status_code)
                yield piece
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise _after_headers(error, response, self._spec) from error
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._response.aclose()


def _before_headers(error: Exception, url: str, spec: TransportSpec) -> InferenceError:
    where = origin(url)
    if isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{where}: no connection within {spec.connect_s:g} s (provider.transport.connect_s)")
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"{where}: no reply within {spec.read_s:g} s (provider.transport.read_s)")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return InvalidRequest(f"provider.base_url: {where} is not an HTTP address")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        cause = _os_error(error)
        return ConnectFailed(f"{where}: can't connect: {_why(error, cause)}; {connect_step(cause)}")
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return Malformed(f"{where}: the reply is not HTTP")
    if isinstance(error, httpx.DecodingError | httpx.LocalProtocolError):
        return Malformed(f"{where}: the reply can't be read ({type(error).__name__})")
    return ConnectFailed(f"{where}: the connection broke before a reply ({type(error).__name__})")


def _after_headers(error: Exception, response: httpx.Response, spec: TransportSpec) -> InferenceError:
    where, status = origin(str(response.url)), response.status_code
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(
            f"{where}: silent for {spec.read_s:g} s in the middle of a reply (provider.transport.read_s)", status=status
        )
    if isinstance(error, httpx.DecodingError):
        return Malformed(f"{where}: the body does not have the content encoding it claims", status=status)
    return Truncated(f"{where}: the connection broke in the middle of a reply", status=status)


def _os_error(error: BaseException) -> OSError | None:
    """The system's error at the bottom of httpx's and httpcore's."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None or isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _why(error: Exception, cause: OSError | None) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    return (cause.strerror if cause else None) or str(error) or type(error).__name__
