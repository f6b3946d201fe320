"""The journal: every result of a run, durable before anybody is told. SQLite in WAL mode, one writer thread.

Commits are grouped: one each `commit_s` seconds or `batch` records, whichever comes first. synchronous=FULL syncs the
log at each commit (sqlite.org/pragma.html#pragma_synchronous); NORMAL could lose a commit that was already published.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import OutputError

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded row."""

    index: int
    ok: bool
    payload: bytes


class Journal:
    """The writing end, for one event loop. Use `aclose`: it commits what is left."""

    def __init__(self, path: Path, *, commit_s: float = 0.05, batch: int = 256) -> None:
        """Makes or opens the file. Raises OutputError. Must be called on the event loop that awaits the appends."""
        self.path = path
        self._commit_s = commit_s
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[int, str, int, int, bytes]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._first_at = 0.0
        self._wake = threading.Condition(threading.Lock())
        self._closing = False
        self._failure: OutputError | None = None
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            _prepare(self._connection)
        except sqlite3.Error as error:
            raise self._error(error) from error
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def append(self, index: int, id: str, ok: bool, digest: int, payload: bytes) -> asyncio.Future[None]:
        """Records a row. The future ends when the record is durable, or with OutputError when it can't become so."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._failure is not None:
                future.set_exception(self._failure)
                return future
            self._pending.append((index, id, int(ok), digest, payload))
            self._waiting.append(future)
            count = len(self._pending)
            if count == 1:
                self._first_at = time.monotonic()
            if count in (1, self._batch):
                self._wake.notify()
        return future

    async def aclose(self) -> None:
        """Commits what is pending and folds the log into the file. Raises OutputError if a commit has failed."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        """The writer thread."""
        futures: list[asyncio.Future[None]] = []
        try:
            while batch := self._take():
                records, futures = batch
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_INSERT, records)
                self._connection.execute("COMMIT")
                self._settle(futures, None)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            failure = self._error(error)
            failure.__cause__ = error
            with self._wake:
                self._failure = failure
                left, self._waiting, self._pending = self._waiting, [], []
            self._settle([*futures, *left], failure)
        finally:
            # An open transaction is rolled back; what was committed stays.
            self._connection.close()

    def _take(self) -> tuple[list[tuple[int, str, int, int, bytes]], list[asyncio.Future[None]]] | None:
        """Waits for the next group; None: closed and nothing left."""
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
            futures, self._waiting = self._waiting, []
            return records, futures

    def _settle(self, futures: list[asyncio.Future[None]], failure: OutputError | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, futures, failure)

    def _error(self, error: sqlite3.Error) -> OutputError:
        return OutputError(
            f"{self.path}: the journal can't be written: {error}; free disk space or choose another disk, "
            "then resume the run: nothing that was recorded is lost"
        )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"it has the format {version}, and this engine writes {_VERSION}")
    if version == 0:
        connection.executescript(_SCHEMA)


def _settle(futures: list[asyncio.Future[None]], failure: OutputError | None) -> None:
    for future in futures:
        if future.done():  # its row was cancelled while it waited; the record stands all the same
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)


def counts(path: Path) -> tuple[int, int]:
    """How many rows are recorded as ok and as failed. Raises OutputError."""
    with _reading(path) as connection:
        total, ok = connection.execute("SELECT count(*), coalesce(sum(ok), 0) FROM record").fetchone()
    return ok, total - ok


def recorded(path: Path) -> Iterator[tuple[int, int]]:
    """Index and row digest of every recorded row, by index; beside a writer it sees later records or not.

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
    """Every record by index, one at a time in memory. Raises OutputError."""
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
        raise OutputError(f"{path}: the journal can't be read: {error}; is this a run directory?") from error
