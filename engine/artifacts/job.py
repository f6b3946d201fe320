"""One fetch: the state that its sources share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from engine.artifacts.cache import Cache, Held
from engine.core.clock import Clock, Rng, SystemClock
from engine.core.errors import SetupError
from engine.schemas.storage import StorageSpec

T = TypeVar("T")

Notify = Callable[[str], None]
"""Called with one line when a slow step begins, and with its progress."""

_LINE_EVERY_S = 5.0
_POLL_S = 0.1


class Stopped(Exception):
    """Raised when the result is not needed any more."""


@dataclass
class Job:
    """The tools of a fetch: settings, the cache, the receiver of notes, and a flag that stops it."""

    spec: StorageSpec
    cache: Cache
    offline: bool = False
    again: bool = False
    """True: fetch it even if it is cached."""
    notify: Notify = lambda line: None
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=SystemClock)
    rng: Rng = field(default_factory=Random)

    def check(self) -> None:
        """Raises Stopped after a stop."""
        if self.stop.is_set():
            raise Stopped

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on a loop of its own, from any thread, until it ends or the job is stopped."""
        outcome: Future[T] = Future()

        def body() -> None:
            try:
                outcome.set_result(asyncio.run(self._watched(work)))
            except asyncio.CancelledError:
                outcome.set_exception(Stopped())
            except BaseException as error:  # raised again by `result`, in the other thread
                outcome.set_exception(error)

        threading.Thread(target=body, name="artifacts", daemon=True).start()
        try:
            return outcome.result()
        except KeyboardInterrupt:
            self.stop.set()
            raise

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=_POLL_S)
            if self.stop.is_set():
                task.cancel()
        return await task

    def once(self, key: str, name: str, download: Callable[[Path], tuple[Path, str, str]]) -> Held:
        """Returns the entry of the source `name` with this key: from the cache, or downloaded by one process for all.

        `download` gets a folder, with the files of an interrupted download, and returns the finished file or folder,
        its content id and its name. Raises SetupError, OSError.
        """
        held = None if self.again else self.cache.lookup(key)
        if held is not None:
            return held
        if self.offline:
            raise SetupError("not in the cache, and storage.offline (or ENGINE_OFFLINE) is set")

        def waiting() -> None:
            self.notify(f"waiting for another process that fetches {name}")

        return self.cache.once(key, name, download, self.check, waiting, self.again)


class Progress:
    """The progress of a download: a line every few seconds."""

    def __init__(self, job: Job, what: str, total_bytes: int | None = None) -> None:
        self._job = job
        self._what = what
        self.total_bytes = total_bytes
        self._told_s = job.clock.monotonic()

    def at(self, done_bytes: int) -> None:
        """Reports the progress, if the last line is some seconds old."""
        now = self._job.clock.monotonic()
        if now - self._told_s < _LINE_EVERY_S:
            return
        self._told_s = now
        of = f" of {megabytes(self.total_bytes)}" if self.total_bytes else ""
        share = f" ({100 * done_bytes // self.total_bytes} %)" if self.total_bytes else ""
        self._job.notify(f"{self._what}: {megabytes(done_bytes)}{of}{share}")


def megabytes(size_bytes: int | None) -> str:
    """Formats a size for people: 1.2 kB, 93.1 MB, 7.4 GB."""
    size = float(size_bytes or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
