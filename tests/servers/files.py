"""A web server of files that can cut, redirect, refuse and lie, and writes down what it was asked."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class Manners:
    """What it does. Changed while it runs."""

    cut_after: list[int] = field(default_factory=list)
    """The next replies break off after so many bytes of body each."""
    statuses: list[int] = field(default_factory=list)
    """The next replies have these statuses."""
    refusal: bytes | None = None
    """Every request, also a PUT, gets this body with status 400."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path → where it sends the client."""
    after_cut: dict[str, bytes] = field(default_factory=dict)
    """When a reply was cut these files replace the old ones, with another ETag."""
    ranges: bool = True
    """Whether Range is honoured."""
    etag: str | None = '"one"'
    pause_s: float = 0.0
    """Between pieces of 64 KiB."""


class FileServer:
    """Serves `files` (path → bytes) on loopback."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.manners = files, Manners()
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and headers (lower case) of each request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("range") for _, headers in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server_of: FileServer

    def log_message(self, *_: Any) -> None:
        """Tests read what was asked, not the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def do_GET(self) -> None:
        files, manners = self.server_of.files, self.server_of.manners
        path = self.path.split("?")[0]
        self.server_of.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if manners.refusal is not None:
            return self._send(400, manners.refusal, {})
        if manners.statuses:
            return self._send(manners.statuses.pop(0), b"", {})
        if path in manners.redirects:
            return self._send(302, b"", {"Location": manners.redirects[path]})
        if path not in files:
            return self._send(404, b"", {})
        data, headers = files[path], {"ETag": manners.etag} if manners.etag else {}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, manners.etag)
        if not (manners.ranges and start and same):
            return self._send(200, data, headers)
        if int(start[1]) >= len(data):
            return self._send(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        said = f"bytes {start[1]}-{len(data) - 1}/{len(data)}"
        return self._send(206, data[int(start[1]) :], {**headers, "Content-Range": said})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        manners = self.server_of.manners
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        most = manners.cut_after.pop(0) if data and manners.cut_after else len(data)
        try:
            for place in range(0, most, 65536):
                self.wfile.write(data[place : min(most, place + 65536)])
                time.sleep(manners.pause_s)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client left, as some tests want it
        if most < len(data):
            self.close_connection = True
            if manners.after_cut:
                self.server_of.files.update(manners.after_cut)
                manners.etag = '"two"'
