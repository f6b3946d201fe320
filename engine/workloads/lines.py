"""Lines of bytes, bounded: a file without line ends can't fill the memory."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LINE_LIMIT_BYTES = 64 * 1024 * 1024
"""A longer line is an invalid row."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


class LongLine(bytes):
    """The beginning of a line over the limit; `size_bytes` is its whole length, `quotes` the number of its `"`."""

    size_bytes: int
    quotes: int


def read_lines(stream: IO[bytes], limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yields lines, numbered from 1, without their ends and a byte order mark; a LongLine for a line over the limit."""
    number = 0
    while line := stream.readline(limit_bytes + 1):
        number += 1
        if number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        if len(line) > limit_bytes and not line.endswith(b"\n"):
            line = _skip(stream, line, limit_bytes)
        else:
            line = line.rstrip(b"\r\n")
        yield number, line


def _skip(stream: IO[bytes], line: bytes, limit_bytes: int) -> LongLine:
    long = LongLine(line[:200])
    long.size_bytes, long.quotes = len(line), line.count(b'"')
    while piece := stream.readline(limit_bytes):
        long.size_bytes += len(piece)
        long.quotes += piece.count(b'"')
        if piece.endswith(b"\n"):
            break
    return long


def open_bytes(path: Path) -> IO[bytes]:
    """Opens the file's bytes, uncompressed if it is gzip. Raises OSError; a broken archive raises while it is read."""
    stream = path.open("rb", buffering=256 * 1024)
    if stream.peek(2)[:2] != _GZIP:  # type: ignore[attr-defined]
        return stream
    return gzip.open(stream, "rb")  # type: ignore[return-value]
