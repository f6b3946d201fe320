"""Server-sent events from bytes, however they are cut (WHATWG HTML, section 9.2 "Server-sent events").

Works on bytes: the data of an event is passed on as it came, so its UTF-8 is checked once, by its parser.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A single event larger than this is refused."""
_MAX_PLACES = 4096
"""Of lines that came one by one, before they are joined."""


class Event(NamedTuple):
    """One dispatched event. `name` is empty where the stream gave none."""

    name: bytes
    data: bytes


_made = tuple.__new__
"""Makes an Event in half the time that its own constructor takes; a stream has one for each token."""


class SseDecoder:
    """Cuts a stream's bytes into events. Lines end with LF, CRLF or CR; comments, `id` and `retry` are skipped."""

    __slots__ = (
        "_after_cr",
        "_counted",
        "_data",
        "_held",
        "_max_bytes",
        "_name",
        "_partial",
        "_size",
        "_started",
        "oversized",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_event_bytes
        self._partial: list[bytes] = []
        """Pieces of the line that has not ended yet; joined once, so that a line cut in many pieces stays linear."""
        self._data: list[bytes] = []
        """Lines of data of the unfinished event; several may be joined in one entry."""
        self._counted = 0
        """The number of these entries in `_held`."""
        self._held = 0
        """Bytes of the unfinished event, its line ends included: lines without data fill the memory, too."""
        self._name = b""
        self._size = 0
        """Bytes of the unfinished line."""
        self._after_cr = False
        self._started = False
        self.oversized = False
        """True once an event passed the limit; nothing is decoded after it."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are now complete."""
        if not data or self.oversized:
            return []
        if not self._started:
            data = self._without_bom(data)
            if not data:
                return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        if len(lines) == 1:
            self._hold(lines[0])
            return []
        if self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial = []
        rest = lines.pop()
        events = self._lines(lines)
        self._size = 0
        if self._data:
            self._count()
        if rest:
            self._hold(rest)
        return events

    def rest(self) -> bytes:
        """The data of an event that was not closed by an empty line when the bytes ended."""
        last = b"".join(self._partial)
        lines = [*self._data, last[5:].removeprefix(b" ")] if last.startswith(b"data:") else self._data
        return b"\n".join(lines)

    def _lines(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    if len(data) > self._max_bytes:
                        self.oversized = True
                        return events
                    events.append(_made(Event, (self._name, data)))
                    self._data, self._counted, self._held = [], 0, 0
                self._name = b""
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line == b"data":  # a line without a colon is a field without a value
                self._data.append(b"")
            elif line == b"event":
                self._name = b""
        return events

    def _count(self) -> None:
        """Adds the new lines of the unfinished event to what is held, and joins them: a short line weighs far more in
        memory alone than with others."""
        new = self._data[self._counted :]
        self._held += sum(map(len, new)) + len(new)
        if len(new) > 1:
            self._data[self._counted :] = [b"\n".join(new)]
        if len(self._data) > _MAX_PLACES:
            self._data = [b"\n".join(self._data)]
        self._counted = len(self._data)
        if self._held > self._max_bytes:
            self._stop()

    def _hold(self, piece: bytes) -> None:
        self._partial.append(piece)
        self._size += len(piece)
        if self._size + self._held > self._max_bytes:
            self._stop()

    def _stop(self) -> None:
        self.oversized = True
        self._partial.clear()
        self._data.clear()

    def _without_bom(self, data: bytes) -> bytes:
        """`data` without a leading byte order mark; empty while it is not known whether there is one."""
        data = b"".join(self._partial) + data
        self._partial.clear()
        self._size = 0
        if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
            self._hold(data)
            return b""
        self._started = True
        return data.removeprefix(b"\xef\xbb\xbf")
