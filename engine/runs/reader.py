"""Reads a source for an event loop: on it, or on a thread so that a slow disk or a pipe doesn't hold it up."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading

from engine.errors import EngineError
from engine.workloads import Row, Source

_AHEAD_ROWS = 64
"""Rows at once; each visit to a thread costs the loop about 50 µs."""


class Reader:
    """The rows of a source, some at a time, read on the event loop itself."""

    def __init__(self, source: Source) -> None:
        self._rows = iter(source)
        self._at_once = 1 if source.live else _AHEAD_ROWS

    async def read(self, most: int) -> list[Row]:
        """The next rows, at least one and at most `most`; none at the end. Raises SetupError."""
        return list(itertools.islice(self._rows, min(most, self._at_once)))

    def close(self) -> None:
        """Nothing is read any more."""


class ThreadReader(Reader):
    """The same on a thread. A daemon: one that waits for a pipe can't be woken at exit."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._loop = asyncio.get_running_loop()
        self._wanted: queue.SimpleQueue[tuple[int, asyncio.Future[list[Row]]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="workload", daemon=True).start()

    async def read(self, most: int) -> list[Row]:
        future: asyncio.Future[list[Row]] = self._loop.create_future()
        self._wanted.put((min(most, self._at_once), future))
        return await future

    def close(self) -> None:
        self._wanted.put(None)

    def _read(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            count, future = wanted
            rows: list[Row] = []
            failure: EngineError | None = None
            try:
                rows.extend(itertools.islice(self._rows, count))
            except EngineError as error:
                failure = error
            if self._loop.is_closed():
                return
            try:
                self._loop.call_soon_threadsafe(_settle, future, rows, failure)
            except RuntimeError:  # the loop was closed in this instant; nobody waits for the rows
                return


def _settle(future: asyncio.Future[list[Row]], rows: list[Row], failure: EngineError | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(rows)
