"""A server of streams at the pace of a model: every stream gets its next event once a tick.

Each event arrives alone, so a client pays a wake-up for it, as with a real provider. nginx sends all events at once.
"""

from __future__ import annotations

import asyncio
from collections import deque

from overhead.server import events

TICK_S = 0.01
"""100 tokens a second for each stream."""


class _Stream(asyncio.Protocol):
    """Answers every request of one connection with all events, one a tick."""

    open: set[_Stream] = set()
    pieces: tuple[bytes, ...] = ()
    head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data, self.waiting = transport, b"", deque[bytes]()

    def connection_lost(self, error: Exception | None) -> None:
        self.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        size = int(self.data[:end].lower().partition(b"content-length:")[2].split(b"\r")[0])
        if len(self.data) >= end + 4 + size:
            self.data = b""
            self.transport.write(self.head)
            self.waiting.extend(self.pieces)
            self.open.add(self)

    def tick(self) -> None:
        self.transport.write(self.waiting.popleft())
        if not self.waiting:
            self.open.discard(self)


async def serve_paced() -> None:
    """Prints its port and serves until it is ended."""
    body = events()
    _Stream.pieces = tuple(piece + b"\n\n" for piece in body.split(b"\n\n") if piece)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    _Stream.head = head.encode()
    listening = await asyncio.get_running_loop().create_server(_Stream, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        while True:
            await asyncio.sleep(TICK_S)
            for stream in tuple(_Stream.open):
                stream.tick()
