"""The journal: every result of a run, durable before any observer gets it. SQLite in WAL mode, one writer.

Commits are grouped: one each `commit_s` seconds or `batch` records, whichever comes first. synchronous=FULL syncs the
log at each commit (sqlite.org/pragma.html#pragma_synchronous); NORMAL could lose a commit that was already published.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import OutputError
from engine.core.journal_errors import unreadable, unwritable

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS record (
  idx INTEGER PRIMARY KEY,   -- the row's place in the workload, from 0: its identity
  id TEXT NOT NULL,          -- its custom_id, which need not be unique
  ok INTEGER NOT NULL,
  digest INTEGER NOT NULL,   -- of the row as it was read, so that a changed workload is noticed at resume
  payload BLOB NOT NULL      -- its line of results.jsonl; of a failed row also, after a line end, that of dead.jsonl
);
PRAGMA user_version={_VERSION};
"""
_INSERT = "INSERT INTO record (idx, id, ok, digest, payload) VALUES (?, ?, ?, ?, ?)"
_PAGE_ROWS = 10_000

Durable = Callable[[OutputError | None], None]
"""Called once, on the event loop: with None when the record is durable, otherwise with the error."""
_Record = tuple[int, str, bool, int, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded row."""

    index: int
    ok: bool
    payload: bytes


class Journal:
    """The journal's writer, for one event loop. Call `aclose`: it commits the rest.

    A thread writes, except in virtual time: there the loop itself commits each full batch, and at the end the rest, so
    that the order of events does not depend on the speed of the disk.
    """

    def __init__(self, path: Path, *, commit_s: float = 0.05, batch: int = 256, threaded: bool = True) -> None:
        """Makes or opens the file. Raises OutputError. Call it on the event loop of the appends."""
        self.path = path
        self._commit_s = commit_s
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._pending: list[_Record] = []
        self._told: list[Durable] = []
        self._first_at = 0.0
        self._wake = threading.Condition(threading.Lock())
        self._closing = False
        self._failure: OutputError | None = None
        self._thread: threading.Thread | None = None
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            _prepare(self._connection)
        except sqlite3.Error as error:
            raise self._error(error) from error
        if threaded:
            self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
            self._thread.start()

    def append(self, index: int, id: str, ok: bool, digest: int, payload: bytes, durable: Durable) -> None:
        """Records a row, soon; then calls `durable`."""
        if self._thread is None:
            self._append_here((index, id, ok, digest, payload), durable)
            return
        with self._wake:
            failure = self._failure
            if failure is None:
                self._pending.append((index, id, ok, digest, payload))
                self._told.append(durable)
                count = len(self._pending)
                if count == 1:
                    self._first_at = time.monotonic()
                if count in (1, self._batch):
                    self._wake.notify()
        if failure is not None:
            durable(failure)

    def _append_here(self, record: _Record, durable: Durable) -> None:
        if self._failure is not None:
            durable(self._failure)
            return
        self._pending.append(record)
        self._told.append(durable)
        if len(self._pending) >= self._batch:
            self._flush()

    def _flush(self) -> None:
        """Commits the pending records at once."""
        records, self._pending = self._pending, []
        told, self._told = self._told, []
        if not records:
            return
        try:
            self._commit(records)
        except sqlite3.Error as error:
            self._failure = self._error(error)
            self._failure.__cause__ = error
        _tell(told, self._failure)

    async def aclose(self) -> None:
        """Commits the pending records and folds the log into the file. Raises OutputError if a commit has failed."""
        if self._thread is not None:
            with self._wake:
                self._closing = True
                self._wake.notify()
            await asyncio.to_thread(self._thread.join)
        else:
            self._flush()
            self._end()
        if self._failure is not None:
            raise self._failure

    def _commit(self, records: list[_Record]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, records)
        self._connection.execute("COMMIT")

    def _end(self) -> None:
        """Folds the log in, if nothing has failed. An open transaction is rolled back; what was committed stays."""
        try:
            if self._failure is None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._failure = self._error(error)
            self._failure.__cause__ = error
        finally:
            self._connection.close()

    def _write(self) -> None:
        """Runs on the writer thread."""
        told: list[Durable] = []
        try:
            while batch := self._take():
                records, told = batch
                self._commit(records)
                self._announce(told, None)
        except sqlite3.Error as error:
            failure = self._error(error)
            failure.__cause__ = error
            with self._wake:
                self._failure = failure
                left, self._told, self._pending = self._told, [], []
            self._announce([*told, *left], failure)
        finally:
            self._end()

    def _take(self) -> tuple[list[_Record], list[Durable]] | None:
        """Waits for the next group; None when the journal is closed and empty."""
        with self._wake:
            while not self._pending:
                if self._closing:
                    return None
                self._wake.wait()
            while len(self._pending) < self._batch and not self._closing:
                rest_s = self._first_at + self._commit_s - time.monotonic()
                if rest_s <= 0:
                    break
                self._wake.wait(rest_s)
            records, self._pending = self._pending, []
            told, self._told = self._told, []
            return records, told

    def _announce(self, told: list[Durable], failure: OutputError | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_tell, told, failure)

    def _error(self, error: sqlite3.Error) -> OutputError:
        return unwritable(self.path, error)


def _tell(told: list[Durable], failure: OutputError | None) -> None:
    for durable in told:
        durable(failure)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"it has the format {version}, and this engine writes {_VERSION}")
    if version == 0:
        connection.executescript(_SCHEMA)


def counts(path: Path) -> tuple[int, int]:
    """Counts the rows recorded as ok and as failed. Raises OutputError."""
    with _reading(path) as connection:
        total, ok = connection.execute("SELECT count(*), coalesce(sum(ok), 0) FROM record").fetchone()
    return ok, total - ok


def count_if_any(path: Path) -> int | None:
    """The number of recorded rows; None for a journal that is gone or empty. Raises OutputError."""
    if not path.is_file():
        return None
    with _reading(path) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'record'").fetchone() is None:
            return None
    return sum(counts(path))


def recorded(path: Path) -> Iterator[tuple[int, int]]:
    """Yields index and row digest of every recorded row, by index; records of a concurrent writer may be missing.

    Read in pages, so that no long-lived snapshot keeps SQLite's log from being folded in. Raises OutputError.
    """
    after = -1
    while True:
        with _reading(path) as connection:
            page = connection.execute(
                "SELECT idx, digest FROM record WHERE idx > ? ORDER BY idx LIMIT ?", (after, _PAGE_ROWS)
            ).fetchall()
        yield from page
        if len(page) < _PAGE_ROWS:
            return
        after = page[-1][0]


def entries(path: Path) -> Iterator[Entry]:
    """Yields every record by index, one at a time in memory. Raises OutputError."""
    with _reading(path) as connection:
        for index, ok, payload in connection.execute("SELECT idx, ok, payload FROM record ORDER BY idx"):
            yield Entry(index, bool(ok), payload)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
