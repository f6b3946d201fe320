"""Reads a source for an event loop: on it, or on a thread so that a slow disk or a pipe doesn't hold it up."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading

from engine.core.errors import EngineError
from engine.runs.pending_rows import PendingRows
from engine.workloads.open import Row

_AHEAD_ROWS = 64
"""Rows in one read; each hand-over to a thread costs the loop about 50 µs."""


class Reader:
    """Reads rows and their digests in groups, on the event loop itself."""

    def __init__(self, rest: PendingRows, live: bool) -> None:
        """`live`: the next row may take long to come, and no row waits for it."""
        self._rows = iter(rest)
        self._at_once = 1 if live else _AHEAD_ROWS

    async def read(self, most: int) -> list[tuple[Row, int]]:
        """Returns the next rows, between one and `most`; an empty list at the end. Raises SetupError, OutputError."""
        return list(itertools.islice(self._rows, min(most, self._at_once)))

    def close(self) -> None:
        """Ends reading."""


class ThreadReader(Reader):
    """The same on a thread. A daemon: one that waits for a pipe can't be woken at exit."""

    def __init__(self, rest: PendingRows, live: bool) -> None:
        super().__init__(rest, live)
        self._loop = asyncio.get_running_loop()
        self._wanted: queue.SimpleQueue[tuple[int, asyncio.Future[list[tuple[Row, int]]]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="workload", daemon=True).start()

    async def read(self, most: int) -> list[tuple[Row, int]]:
        future: asyncio.Future[list[tuple[Row, int]]] = self._loop.create_future()
        self._wanted.put((min(most, self._at_once), future))
        return await future

    def close(self) -> None:
        self._wanted.put(None)

    def _read(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            count, future = wanted
            rows: list[tuple[Row, int]] = []
            failure: EngineError | None = None
            try:
                rows.extend(itertools.islice(self._rows, count))
            except EngineError as error:
                failure = error
            if self._loop.is_closed():
                return
            try:
                self._loop.call_soon_threadsafe(_settle, future, rows, failure)
            except RuntimeError:  # the loop was closed in this instant; nothing waits for the rows
                return


def _settle(
    future: asyncio.Future[list[tuple[Row, int]]], rows: list[tuple[Row, int]], failure: EngineError | None
) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(rows)
