"""A source: a lazily read sequence of rows, which can be read again from its start unless it is live."""

from __future__ import annotations

import hashlib
import itertools
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.cid import cid_of_digest
from engine.core.errors import ConfigError, SetupError, nearest
from engine.workloads.rows import Form, Record, Row, letter_of, row_of

_BLOCK_BYTES = 64 * 1024
_BLOCKS = 16
_COUNTED_BYTES = 1024 * 1024 * 1024
"""Counting the rows of a larger file would keep its run waiting."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Users who each send a request, wait for the answer, think, and send the next."""

    users: int
    think_s: float
    """Mean pause before a question, in seconds, drawn from the exponential distribution."""
    duration_s: float | None
    """No request is sent later, in seconds from the start; None: until the rows are used up."""
    seed: int


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in order. Iterating starts at the first row; memory does not grow with the number of rows."""

    kind: str
    name: str
    """The path as the user gave it, or `stdin`."""
    records: Callable[[], Iterator[Record]]
    """Reads the records, from the first one."""
    form: Form
    limit: int | None = None
    path: Path | None = None
    live: bool = False
    """True for a pipe or a terminal: it can be read once, and a read may wait."""
    stored_count: Callable[[], int] | None = None
    """The number of rows, if the file itself reports it."""

    @property
    def made(self) -> bool:
        """Returns True if its rows are synthetic, not read: then no call waits for a disk or a pipe."""
        return False

    @property
    def closed_loop(self) -> ClosedLoop | None:
        """Returns the users; None if rows without arrival times come as fast as the window allows."""
        return None

    def __iter__(self) -> Iterator[Row]:
        """Raises SetupError when the file can't be read further."""
        return self.rows()

    def rows(self, known: Callable[[int, bytes], bool] | None = None) -> Iterator[Row]:
        """Yields the rows except those whose index and letter `known` accepts: these may be skipped unread, which is
        faster. Raises SetupError when the file can't be read further."""
        index = 0
        try:
            for record in itertools.islice(self.records(), self.limit):
                letter = None if known is None else letter_of(record, self.form)
                if letter is None or not known(index, letter):  # type: ignore[misc]
                    yield row_of(index, self.name, record, self.form)
                index += 1
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(self.name, index, error) from error

    def count(self) -> int | None:
        """Returns the exact number of rows; None if it is unknown, or costly to find out. Raises SetupError."""
        if self.live or self.path is None:
            return None
        if self.stored_count is not None:
            rows = self.stored_count()
            return rows if self.limit is None else min(rows, self.limit)
        if self.limit is None and self.path.stat().st_size > _COUNTED_BYTES:
            return None
        rows = 0
        try:
            for _ in itertools.islice(self.records(), self.limit):
                rows += 1
        except (OSError, EOFError, zlib.error) as error:
            raise _unreadable(self.name, rows, error) from error
        return rows

    def describe(self) -> str:
        """Describes the source in one line."""
        limit = f", at most {self.limit} rows" if self.limit is not None else ""
        return f"{self.kind} {self.name} ({self.form.task}{limit})"

    def fingerprint(self) -> dict[str, Any] | None:
        """Returns an identity of the file at the cost of 1 MiB: its size in bytes, and the content id of 16
        blocks of 64 KiB spread over it, the first and the last among them. An edit between the blocks that keeps the
        size is found later: the journal has a digest of every row. None: live."""
        if self.live or self.path is None:
            return None
        try:
            size = self.path.stat().st_size
            digest = hashlib.sha256()
            with self.path.open("rb") as stream:
                for place in range(_BLOCKS):
                    stream.seek(max(0, size - _BLOCK_BYTES) * place // (_BLOCKS - 1))
                    digest.update(stream.read(_BLOCK_BYTES))
        except OSError as error:
            raise ConfigError(f"workload.path: {self.name} can't be read: {error.strerror}") from error
        return {"bytes": size, "blocks": cid_of_digest(digest.digest())}


def find_file(name: str, knob: str = "workload.path") -> tuple[Path, bool]:
    """Returns the file that `knob` names, and True if it is live (a pipe). Raises ConfigError, with the nearest names
    of its folder."""
    path = Path(name).expanduser()
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except FileNotFoundError as error:
        raise ConfigError(f"{knob}: {name} does not exist; {_neighbours(path)}") from error
    except PermissionError as error:
        raise ConfigError(f"{knob}: {name} may not be read by this user; change its permissions") from error
    except OSError as error:
        raise ConfigError(f"{knob}: {name} can't be opened: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        files = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_file())[:5]) or "no files"
        raise ConfigError(f"{knob}: {name} is a folder; name one file in it (it has {files})")
    return path, not stat.S_ISREG(mode)


def _unreadable(name: str, rows: int, error: Exception) -> SetupError:
    return SetupError(f"workload.path: {name} can't be read after row {rows}: {error}; repair the file and try again")


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    except PermissionError:
        return f"the folder {folder} may not be listed"
    return nearest(path.name, names) or f"the folder {folder} has no files"
