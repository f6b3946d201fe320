"""A trustless IPFS gateway over the blocks of CAR files, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Manners:
    """What a gateway does wrong. Changed while it runs."""

    forge: str | None = None
    """The content id whose block is sent with another last byte."""
    cut_after: int | None = None
    """A CAR breaks off after so many bytes."""
    status: int | None = None
    """Every request gets this status."""
    car_status: int | None = None
    """Requests for a CAR get this status."""
    missing: tuple[str, ...] = ()
    """Content ids that it does not have, alone or in a CAR."""
    junk_blocks: int = 0
    """Blocks of 1 MiB in a CAR that nobody asked for, in front."""
    shuffle: bool = False
    """A CAR has its blocks in the reverse order."""
    pause_s: float = 0.0
    """Before each reply."""
    redirect: str | None = None
    """Every request is sent on to this address."""


@dataclass
class Asked:
    cars: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)


class Gateway:
    """Serves on loopback; `url` says where, `asked` what was asked."""

    def __init__(self, *cars: Path) -> None:
        self.manners, self.asked = Manners(), Asked()
        self.blocks: dict[str, tuple[bytes, bytes]] = {}
        self.order: dict[str, list[str]] = {}
        for car in cars:
            root, blocks = read_car(car.read_bytes())
            self.order[root] = list(blocks)
            self.blocks |= blocks
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"gateway": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def block(self, cid: str) -> bytes:
        data = self.blocks[cid][1]
        return data[:-1] + bytes([data[-1] ^ 1]) if cid == self.manners.forge else data

    def car(self, root: str) -> bytes:
        """The whole archive; gateways that send just what a path needs send less."""
        order = [cid for cid in self.order[root] if cid not in self.manners.missing]
        if self.manners.shuffle:
            order.reverse()
        junk = [_section(*_junk(number)) for number in range(self.manners.junk_blocks)]
        return _header() + b"".join(junk) + b"".join(_section(self.blocks[cid][0], self.block(cid)) for cid in order)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # connections are kept open; the server's end is not held up by them


class _Handler(BaseHTTPRequestHandler):
    gateway: Gateway
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Tests read what was asked, not the log."""

    def do_GET(self) -> None:
        manners, url = self.gateway.manners, urlsplit(self.path)
        root = unquote(url.path).removeprefix("/ipfs/").split("/")[0]
        wanted = parse_qs(url.query)["format"][0]
        (self.gateway.asked.cars if wanted == "car" else self.gateway.asked.blocks).append(root)
        time.sleep(manners.pause_s)
        if manners.redirect:
            self.send_response(302)
            self.send_header("Location", manners.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif manners.status or (wanted == "car" and manners.car_status):
            self._reply(manners.status or manners.car_status or 0, b"", "text/plain")
        elif wanted == "car" and root in self.gateway.order:
            self._reply(200, self.gateway.car(root), "application/vnd.ipld.car; version=1", manners.cut_after)
        elif wanted == "raw" and root in self.gateway.blocks and root not in manners.missing:
            self._reply(200, self.gateway.block(root), "application/vnd.ipld.raw")
        else:
            self._reply(404, b"", "text/plain")

    def _reply(self, status: int, data: bytes, kind: str, cut_after: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if cut_after is None else data[:cut_after])
        self.close_connection = cut_after is not None


def read_car(data: bytes) -> tuple[str, dict[str, tuple[bytes, bytes]]]:
    """The first block's content id, and for each content id its binary form and its block."""
    size, place = _varint(data, 0)
    place += size
    blocks: dict[str, tuple[bytes, bytes]] = {}
    while place < len(data):
        size, place = _varint(data, place)
        length = 34 if data[place] == 0x12 else 36
        binary, block = data[place : place + length], data[place + length : place + size]
        assert hashlib.sha256(block).digest() == binary[-32:]
        blocks[_text(binary)] = (binary, block)
        place += size
    return next(iter(blocks)), blocks


def _text(binary: bytes) -> str:
    import base64

    whole = b"\x01\x70" + binary if binary[0] == 0x12 else binary
    return "b" + base64.b32encode(whole).decode().rstrip("=").lower()


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            return number, place


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _section(cid: bytes, block: bytes) -> bytes:
    return _number(len(cid) + len(block)) + cid + block


def _header() -> bytes:
    body = b"\xa2\x65roots\x80\x67version\x01"  # CBOR: {"roots": [], "version": 1}
    return _number(len(body)) + body


def _junk(number: int) -> tuple[bytes, bytes]:
    block = number.to_bytes(4, "big") * 262_144
    return b"\x01\x55\x12\x20" + hashlib.sha256(block).digest(), block
