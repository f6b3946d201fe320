"""The transport port over gRPC: a call's path is the method's, its content one message; so is the reply's.

The end of a call is given in HTTP's words, so that dialects read one kind of failure: its status as google.rpc.Code
(googleapis, google/rpc/code.proto, "HTTP Mapping") maps it, its details as `{"error": …}`. Calls with one message each
way only. Needs grpcio: pip install "ipfs-accelerate[grpc]".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.core.errors import ConnectFailed, InvalidRequest, SetupError, TimedOut
from engine.schemas.provider import TransportSpec
from engine.transports.transport import HttpCall, closed, origin, too_large

try:
    import grpc
    from grpc.aio import AioRpcError, Channel, insecure_channel, secure_channel
except ImportError as error:
    raise SetupError(
        'provider.transport.kind=grpc: grpcio is not installed; pip install "ipfs-accelerate[grpc]"'
    ) from error

_STATUSES = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""The rest is 500, also a call that the server or a proxy cancelled: it is not the caller who left."""


class GrpcTransport:
    """One channel for each address, made at its first call."""

    def __init__(self, spec: TransportSpec) -> None:
        self._spec = spec
        self._options = _options(spec)
        self._channels: dict[str, Channel] = {}
        self._closed = False

    async def open(self, call: HttpCall) -> GrpcReply:
        if self._closed:
            raise closed()
        where, path = origin(call.url), urlsplit(call.url).path
        channel = self._channels.get(where) or self._connect(call.url, where)
        await self._connected(channel, where)
        sent = channel.unary_unary(path)(
            call.content or b"",
            metadata=tuple(call.headers.items()),
            timeout=self._spec.read_s,
        )
        try:
            content = await sent
            headers = _headers(await sent.initial_metadata(), await sent.trailing_metadata())
        except AioRpcError as error:
            return self._failed(error, channel, where)
        except asyncio.CancelledError:
            sent.cancel()
            raise
        return GrpcReply(200, headers, content)

    async def aclose(self) -> None:
        self._closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    def _connect(self, url: str, where: str) -> Channel:
        parts = urlsplit(url)
        address = where.partition("://")[2]
        if parts.scheme == "https":
            channel = secure_channel(address, _credentials(self._spec.verify), self._options)
        else:
            channel = insecure_channel(address, self._options)
        self._channels[where] = channel
        return channel

    async def _connected(self, channel: Channel, where: str) -> None:
        """Waits for the connection. Raises TimedOut; where it fails, the call says why."""
        state = channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(self._spec.connect_s):
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        return
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            self._channels.pop(where, None)
            raise TimedOut(
                f"{where}: no connection within {self._spec.connect_s:g} s (provider.transport.connect_s)"
            ) from None

    def _failed(self, error: AioRpcError, channel: Channel, where: str) -> GrpcReply:
        """The reply that a failed call is. Raises an InferenceError where none came."""
        code, details = error.code(), error.details() or ""
        headers = _headers(error.initial_metadata(), error.trailing_metadata())
        if code is grpc.StatusCode.UNAVAILABLE and channel.get_state() is not grpc.ChannelConnectivity.READY:
            # A channel that failed tries again at times of its own; when to try is the policy's matter.
            self._channels.pop(where, None)
            raise ConnectFailed(
                f"{where}: {details}; is a gRPC server running there? its port is not that of its REST interface, and "
                "https:// in provider.base_url requests TLS"
            ) from error
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details and "CLIENT" in details:
            raise too_large(self._spec.max_body_bytes, 200) from error
        status = _STATUSES.get(code.name, 500)
        headers["grpc-status"] = code.name
        words = f"{details or 'no details'} (gRPC {code.name})"
        return GrpcReply(status, headers, msgspec.json.encode({"error": words}))


class GrpcReply:
    """A reply that has come whole."""

    __slots__ = ("_content", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self._content = content

    async def read(self) -> bytes:
        return self._content

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._content

    async def aclose(self) -> None:
        """Nothing is left open."""


def _options(spec: TransportSpec) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", spec.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.primary_user_agent", "ipfs-accelerate"),
        ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, whatever the state of the last one
        ("grpc.enable_retries", 0),  # retries live in one layer: policy.retry
        ("grpc.client_idle_timeout_ms", max(1000, int(spec.keepalive_s * 1000))),
    ]
    if spec.proxy is not None:
        options.append(("grpc.http_proxy", spec.proxy))
    elif not spec.trust_env:
        options.append(("grpc.enable_http_proxy", 0))
    return options


def _credentials(verify: bool | str) -> Any:
    """TLS settings. Raises SetupError and InvalidRequest."""
    if verify is False:
        raise InvalidRequest(
            "provider.transport.verify: gRPC can't leave a certificate unverified; give the path of its CA bundle"
        )
    if verify is True:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(Path(verify).expanduser().read_bytes())
    except OSError as error:
        reason = error.strerror or "it can't be read"
        raise SetupError(f"provider.transport.verify: can't use {verify} as a CA bundle: {reason}") from error


def _headers(*metadata: Any) -> dict[str, str]:
    """Metadata as headers; binary values are left out."""
    return {str(key).lower(): value for each in metadata for key, value in each or () if isinstance(value, str)}
