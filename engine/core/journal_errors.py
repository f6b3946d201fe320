"""Errors of a run's journal, by what SQLite reports, each with the step that helps."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.core.atomic_file import CantWrite
from engine.core.errors import OutputError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def unreadable(path: Path, error: sqlite3.Error) -> OutputError:
    """The error for a journal that can't be read."""
    return _damage(path, error) or OutputError(
        f"{path}: the journal can't be read: {error}; is this a run directory, may you read it, and does `ulimit -n` "
        "leave room for another open file?"
    )


def unwritable(path: Path, error: sqlite3.Error) -> OutputError:
    """The error for a journal that can't be written."""
    return _damage(path, error) or CantWrite(
        f"{path}: the journal can't be written: {error}; free disk space or choose another disk"
    )


def _damage(path: Path, error: sqlite3.Error) -> OutputError | None:
    """The error for a journal whose content is broken, which no resume mends; None for any other error."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
        return None
    return OutputError(
        f"{path}: the journal can't be read: {error}; it is damaged, and no resume can use it. "
        "Fix: put back a copy of it, or start a new run"
    )
