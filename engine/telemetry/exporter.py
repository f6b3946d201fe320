"""The exposition while an engine runs: a file for node_exporter's textfile collector, an address to scrape."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

from engine.core.errors import SetupError
from engine.schemas.telemetry import TelemetrySpec
from engine.telemetry.counted import Counted
from engine.telemetry.prometheus import CONTENT_TYPE, text

PERIOD_S = 5.0
"""The time between two writes of the file."""
_HOST = "127.0.0.1"
_REQUEST_S = 5.0
"""Time limit for a scraper's request, in seconds."""

log = logging.getLogger("engine.telemetry")


class Exporter:
    """Writes `telemetry.prometheus_file` every few seconds and serves `telemetry.prometheus_port` on loopback."""

    def __init__(self, engine: Counted, spec: TelemetrySpec, period_s: float = PERIOD_S) -> None:
        self._engine = engine
        self._path = Path(spec.prometheus_file) if spec.prometheus_file else None
        self._wanted_port = spec.prometheus_port
        self._period_s = period_s
        self._writing: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int | None:
        """Returns the port that it listens on; None if it does not listen."""
        return self._socket.getsockname()[1] if self._socket is not None else None

    async def start(self) -> None:
        """Raises SetupError: the port is taken, the file can't be written. Does nothing the second time."""
        if self._wanted_port is not None and self._socket is None:
            try:
                self._socket = socket.create_server((_HOST, self._wanted_port))
            except OSError as error:
                raise SetupError(
                    f"telemetry.prometheus_port: {_HOST}:{self._wanted_port} can't be used: {error.strerror}; "
                    "choose another port, 0 for any free one, or null for none"
                ) from error
            self._server = await asyncio.start_server(self._answer, sock=self._socket, limit=8192)
            log.info("metrics at http://%s:%s/metrics", _HOST, self.port)
        if self._path is not None and self._writing is None:
            try:
                self._write(self._path)
            except OSError as error:
                raise SetupError(
                    f"telemetry.prometheus_file: {self._path} can't be written: {error.strerror}; "
                    "choose another path, or null for none"
                ) from error
            self._writing = asyncio.create_task(self._keep_writing(self._path))

    async def aclose(self) -> None:
        """Writes the last figures and stops listening, also after the event loop that it was started on has ended."""
        if self._server is not None and not self._server.get_loop().is_closed():
            self._server.close()
        if self._socket is not None:
            self._socket.close()
        self._server = self._socket = None
        if self._writing is not None and self._path is not None:
            if not self._writing.done():
                self._writing.cancel()
                await asyncio.wait([self._writing])
            self._writing = None
            self._try_to_write(self._path)

    async def _keep_writing(self, path: Path) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            self._try_to_write(path)

    def _try_to_write(self, path: Path) -> None:
        """Writes the file; a full disk is only logged."""
        try:
            self._write(path)
        except OSError as error:
            log.warning("telemetry.prometheus_file: %s could not be written: %s", path, error.strerror)

    def _write(self, path: Path) -> None:
        """Writes the file on the loop that counts; a few kilobytes, not synced."""
        _replace(path, text(self._engine).encode())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head.split(b"\r\n", 1)[0].decode("latin-1")))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("a scraper left, or sent something other than HTTP")
        finally:
            writer.close()

    def _reply(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", "GET /metrics\n"
        elif path != "/metrics":
            status, body = "404 Not Found", "the figures are at /metrics\n"
        else:
            status, body = "200 OK", text(self._engine)
        content = body.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + (b"" if method == "HEAD" else content)


def _replace(path: Path, content: bytes) -> None:
    """Replaces the file: a reader sees the old one or the new one. The collector reads only names that end in .prom,
    not the temporary one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
