"""Connections of httpcore, kept by where they lead to.

httpcore's own pool looks at every connection twice a request, with a system call for each idle one, which costs more
than the request once there are a few dozen. Here each connection is a pool of one, a lane, and the lane that was used
last is taken first.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import httpcore

from engine.transports.transport import MAX_INTERIM_BYTES, closed


class Pool(Protocol):
    """Answers one request at a time, as httpcore's pools do."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response: ...

    async def aclose(self) -> None: ...


@dataclass(slots=True, eq=False)
class Lane:
    """One connection, or the place for one."""

    origin: str
    pool: Pool
    guard: HeadGuard
    used_at: float = 0.0
    """The time when it was last given back, in seconds of the monotonic clock."""


class Lanes:
    """The lanes of one transport. A lane that was taken must be given back, whatever the outcome of its request."""

    def __init__(self, most: int, keepalive_s: float) -> None:
        """`most` lanes over all origins; an idle one is closed after `keepalive_s`, when its origin is used again."""
        self._permits = asyncio.Semaphore(most)
        self._most = most
        self._keepalive_s = keepalive_s
        self._idle: dict[str, deque[Lane]] = {}
        self._all: set[Lane] = set()
        self._closed = False

    async def take(self, origin: str, make: Callable[[HeadGuard], Pool]) -> Lane:
        """A lane to an origin, idle or made. Waits while `most` are in use. Raises Cancelled after `aclose`."""
        await self._permits.acquire()
        if self._closed:
            self._permits.release()
            raise closed()
        idle = self._idle.get(origin)
        if idle:
            return idle.pop()
        try:
            if len(self._all) >= self._most:
                await self._close(min((lanes[0] for lanes in self._idle.values() if lanes), key=lambda it: it.used_at))
            guard = HeadGuard()
            lane = Lane(origin, make(guard), guard)
        except BaseException:
            self._permits.release()
            raise
        self._all.add(lane)
        return lane

    async def give(self, lane: Lane) -> None:
        """Takes a lane back, and closes one that was idle for too long."""
        self._permits.release()
        if self._closed:
            return
        now = lane.used_at = monotonic()
        idle = self._idle.get(lane.origin)
        if idle is None:
            idle = self._idle[lane.origin] = deque()
        idle.append(lane)
        if now - idle[0].used_at > self._keepalive_s:
            await self._close(idle[0])

    async def aclose(self) -> None:
        """Closes every lane, also those in use."""
        self._closed = True
        lanes, self._all = self._all, set()
        self._idle.clear()
        for lane in lanes:
            await lane.pool.aclose()

    async def _close(self, lane: Lane) -> None:
        self._idle[lane.origin].remove(lane)
        self._all.discard(lane)
        await lane.pool.aclose()


@dataclass(slots=True)
class HeadGuard:
    """Counts what a connection brings before the headers of a reply are whole, so that these can't continue for
    ever."""

    left: int = 0
    """Returns the number of bytes that may still come."""
    waiting: bool = False
    """Between a request and the headers of its reply."""

    connected: bool = False
    """The connection was made for this request; else an earlier one had made it."""

    @property
    def silent(self) -> bool:
        """Nothing has come since the request."""
        return self.left == MAX_INTERIM_BYTES

    def begin(self) -> None:
        """A request is sent now."""
        self.left, self.waiting, self.connected = MAX_INTERIM_BYTES, True, False


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """httpcore's network, with a guard on what it reads."""

    def __init__(self, guard: HeadGuard) -> None:
        self._real = httpcore.AnyIOBackend()
        self._guard = guard

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self._guard.connected = True
        stream = await self._real.connect_tcp(host, port, timeout, local_address, socket_options)
        return _GuardedStream(stream, self._guard)


class _GuardedStream(httpcore.AsyncNetworkStream):
    def __init__(self, real: httpcore.AsyncNetworkStream, guard: HeadGuard) -> None:
        self._guard = guard
        self._real = real
        self.write = real.write  # type: ignore[method-assign]
        self.aclose = real.aclose  # type: ignore[method-assign]
        self.get_extra_info = real.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as above
        data = await self._real.read(max_bytes, timeout)
        guard = self._guard
        if guard.waiting:
            guard.left -= len(data)
            if guard.left < 0:
                raise httpcore.RemoteProtocolError("the headers do not come to an end")
        return data

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> httpcore.AsyncNetworkStream:
        return _GuardedStream(await self._real.start_tls(ssl_context, server_hostname, timeout), self._guard)
