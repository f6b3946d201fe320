"""Newline-delimited JSON from bytes, however they are cut (github.com/ndjson/ndjson-spec, version 1.0).

Works on bytes: a line is passed on as it came, so its UTF-8 is checked once, by its parser.
"""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A single line larger than this is refused."""

_BOM = b"\xef\xbb\xbf"


class NdjsonDecoder:
    """Cuts a stream's bytes into lines, which end with LF or CRLF; empty lines are skipped."""

    __slots__ = ("_max_bytes", "_partial", "_size", "_started", "oversized")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_line_bytes
        self._partial: list[bytes] = []
        """Pieces of the line that has not ended yet; joined once, so that a line cut in many pieces stays linear."""
        self._size = 0
        self._started = False
        """A first line has come; a byte order mark may come before it."""
        self.oversized = False
        """True once a line passed the limit; nothing is decoded after it."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are now complete, without their ends."""
        if not data or self.oversized:
            return []
        lines = data.split(b"\n")
        if len(lines) > 1 and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial, self._size = [], 0
        rest = lines.pop()
        whole: list[bytes] = []
        for line in lines:
            if len(line) > self._max_bytes:
                self._stop()
                return whole
            line = self._clean(line)
            if line:
                whole.append(line)
        if rest:
            self._partial.append(rest)
            self._size += len(rest)
            if self._size > self._max_bytes:
                self._stop()
        return whole

    def rest(self) -> bytes:
        """The line that no newline had closed when the bytes ended."""
        return self._clean(b"".join(self._partial))

    def _clean(self, line: bytes) -> bytes:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        return line.strip(b" \t\r")

    def _stop(self) -> None:
        self.oversized = True
        self._partial.clear()
