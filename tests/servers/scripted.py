"""A loopback HTTP server that does what a test tells it to, byte by byte, and notices when its client leaves."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec


@dataclass(eq=False)
class Exchange:
    """One request, and the connection that it came on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client is seen to close the connection."""

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body)  # type: ignore[no-any-return]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        """A whole reply; anything but bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        lines = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self.send(head(status, lines) + content)

    async def start(self, headers: dict[str, str] | None = None) -> None:
        """The head of a chunked reply; a stream of events where nothing else is said."""
        lines = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}
        await self.send(head(200, lines))

    async def piece(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, data: object) -> None:
        await self.piece(b"data: " + (data if isinstance(data, bytes) else msgspec.json.encode(data)) + b"\n\n")

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def until_left(self) -> None:
        """Waits until the client closes its side."""
        try:
            while await self.reader.read(65536):
                pass
        except OSError:
            pass
        self.left.set()

    def cut(self) -> None:
        """Closes the connection after what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """Breaks the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedServer:
    """Runs one script for every request. `exchanges` are the requests in order of arrival."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while not writer.is_closing():
                exchange = await self._request(reader, writer)
                if exchange is None:
                    break
                self.exchanges.append(exchange)
                await self.script(exchange)
        except OSError:
            if self.exchanges:
                self.exchanges[-1].left.set()
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange | None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, path, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Exchange(method, path, headers, body, reader, writer)


def head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode()
