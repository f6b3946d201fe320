"""One process per run directory. The kernel drops the lock when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from engine.core.errors import OutputError

LOCK = ".lock"

_PATIENCE_S = 0.25
"""`is_locked` holds the lock for an instant; `RunLock` retries for this long."""


class RunLock:
    """An exclusive lock on a directory, held from its making until `release`."""

    def __init__(self, directory: Path) -> None:
        """Raises OutputError when another process has the lock."""
        path = directory / LOCK
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"output.dir: {directory} can't be written: {error.strerror}; choose another") from error
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    os.close(self._descriptor)
                    raise OutputError(
                        f"output.dir: {directory} is in use by another process; wait until that run ends or stop it"
                    ) from error
                time.sleep(0.01)
            except OSError as error:
                os.close(self._descriptor)
                raise OutputError(
                    f"output.dir: {directory} is on a file system without locks ({error.strerror}); choose a local one"
                ) from error

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(directory: Path) -> bool:
    """True if a process works in the directory just now."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
