"""The ledger: the rows of each batch job, durable before the provider gets them. In the journal's file.

A job passes through the states in order. After a crash, its last durable state says what may have happened:

- `meant`: at most an upload has reached the provider, so there is no job
- `asked`: the call that creates it may have arrived, so it is looked for before it is sent again
- `made`: it exists there under `provider_id`
- `void`: the job does not exist, or it ended before it began; its rows are free
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.core.errors import OutputError
from engine.core.journal_errors import unreadable, unwritable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
  number INTEGER PRIMARY KEY,  -- from 1, in the order in which they were meant
  tag TEXT NOT NULL UNIQUE,    -- what the provider is shown, to find it by
  state TEXT NOT NULL,
  target TEXT NOT NULL,
  key TEXT,                    -- the name of the key that it belongs to
  task TEXT NOT NULL,
  model TEXT NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  meant_at REAL NOT NULL,      -- seconds since 1970, as the next two
  asked_at REAL,
  ended_at REAL,
  input_file TEXT,
  provider_id TEXT,
  said TEXT,                   -- the provider's last word for its state, or why it is void
  answered INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  again INTEGER NOT NULL DEFAULT 0  -- rows that it left unanswered, and that went on elsewhere
);
CREATE TABLE IF NOT EXISTS job_row (idx INTEGER NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (idx, job)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job_run (id TEXT NOT NULL);
"""
_COLUMNS = (
    "number", "tag", "state", "target", "key", "task", "model", "rows", "bytes", "meant_at", "asked_at", "ended_at",
    "input_file", "provider_id", "said", "answered", "failed", "again",
)  # fmt: skip
_HELD = """
SELECT idx, max(job), count(*) FROM job_row JOIN job ON number = job
WHERE state != 'void' AND idx NOT IN (SELECT idx FROM record) GROUP BY idx
"""
_HELD_ROWS = """
SELECT count(DISTINCT idx) FROM job_row JOIN job ON number = job
WHERE state IN ('asked', 'made') AND idx NOT IN (SELECT idx FROM record)
"""
T = TypeVar("T")


@dataclass(slots=True)
class JobRecord:
    """One job. Times are in seconds since 1970."""

    number: int
    tag: str
    state: str
    target: str
    key: str | None
    task: str
    model: str
    rows: int
    bytes: int
    meant_at: float
    asked_at: float | None = None
    ended_at: float | None = None
    input_file: str | None = None
    provider_id: str | None = None
    said: str | None = None
    answered: int = 0
    failed: int = 0
    again: int = 0

    @property
    def took_s(self) -> float | None:
        """Returns the seconds from the call that created it until its end was seen."""
        return self.ended_at - self.asked_at if self.ended_at is not None and self.asked_at is not None else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Ledger:
    """The jobs of one run, for one writer. Every change is durable when its call returns. Raises CantWrite."""

    def __init__(self, journal: Path, run_id: str) -> None:
        """`journal` exists. `run_id` is used unless the journal has an id from an earlier session."""
        self._path = journal
        try:
            self._connection = sqlite3.connect(journal, isolation_level=None, timeout=30.0)
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            known = self._connection.execute("SELECT id FROM job_run").fetchone()
            if known is None:
                self._connection.execute("INSERT INTO job_run VALUES (?)", (run_id,))
            self.run_id: str = known[0] if known else run_id
            """Part of every tag of this run: letters and digits."""
            self._last: int = self._connection.execute("SELECT coalesce(max(number), 0) FROM job").fetchone()[0]
        except sqlite3.Error as error:
            raise self._error(error) from error

    def mean(
        self, target: str, key: str | None, task: str, model: str, rows: Sequence[int], size: int, at: float
    ) -> JobRecord:
        """Records a job before any part of it is sent. `rows` are its rows' indices, `size` its bytes."""
        number = self._last + 1
        tag = f"{self.run_id}-{number}"
        job = JobRecord(number, tag, "meant", target, key, task, model, len(rows), size, at)
        values = [getattr(job, name) for name in _COLUMNS]
        marks = ", ".join("?" * len(_COLUMNS))
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"INSERT INTO job ({', '.join(_COLUMNS)}) VALUES ({marks})", values)
            self._connection.executemany("INSERT INTO job_row VALUES (?, ?)", ((row, number) for row in rows))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._error(error) from error
        self._last = number
        return job

    def change(self, job: JobRecord, **changes: Any) -> None:
        """Changes fields of a job, here and on the disk."""
        for name, value in changes.items():
            setattr(job, name, value)
        sets = ", ".join(f"{name} = ?" for name in changes)
        try:
            self._connection.execute(f"UPDATE job SET {sets} WHERE number = ?", (*changes.values(), job.number))
        except sqlite3.Error as error:
            raise self._error(error) from error

    def jobs(self) -> list[JobRecord]:
        """Returns all jobs, in order."""
        return _jobs(self._connection)

    def rows_of(self, job: JobRecord) -> list[int]:
        """Returns the indices of its rows, in the order in which they were sent."""
        found = self._connection.execute("SELECT idx FROM job_row WHERE job = ? ORDER BY idx", (job.number,))
        return [row for (row,) in found]

    def held(self) -> dict[int, tuple[int, int]]:
        """Returns row → (the latest job that holds it, the number of its jobs), for rows without a record."""
        return {row: (job, count) for row, job, count in self._connection.execute(_HELD)}

    def open_jobs(self) -> list[JobRecord]:
        """Returns the jobs that are, or may be, at the provider, and have not been read to their end."""
        held = {number for number, _ in self.held().values()}
        states = ("asked", "made")
        return [job for job in self.jobs() if job.number in held and job.state in states and job.ended_at is None]

    def close(self) -> None:
        self._connection.close()

    def _error(self, error: sqlite3.Error) -> OutputError:
        return unwritable(self._path, error)


def held_rows(journal: Path) -> int:
    """Counts the rows without a record in jobs that are, or may be, at the provider. Raises OutputError."""
    return _peek(journal, lambda connection: connection.execute(_HELD_ROWS).fetchone()[0], 0)


def jobs_of(journal: Path) -> list[JobRecord]:
    """Returns the batch jobs of a run, in order; empty for a run without any. Raises OutputError."""
    return _peek(journal, _jobs, [])


def _peek(journal: Path, ask: Callable[[sqlite3.Connection], T], nothing: T) -> T:
    """Queries the ledger of a journal; returns `nothing` for a journal without a ledger."""
    try:
        connection = sqlite3.connect(f"{journal.absolute().as_uri()}?mode=rw", uri=True)
        try:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'job'").fetchone()
            return ask(connection) if known else nothing
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise unreadable(journal, error) from error


def _jobs(connection: sqlite3.Connection) -> list[JobRecord]:
    return [JobRecord(*row) for row in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM job ORDER BY number")]
