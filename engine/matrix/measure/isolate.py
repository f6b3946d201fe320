"""One process a model, from a fork server with the heavy imports, within limits of time and memory."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from engine.matrix.measure.memory import resident_bytes

_LOOK_S = 0.05
"""The interval between checks of the limits, in seconds."""

Target = Callable[..., None]


@dataclass(frozen=True)
class Limits:
    """Limits of one process."""

    time_s: float
    memory_bytes: int
    """Memory without the part shared with the fork server at the start."""


@dataclass
class Ended:
    """A process that has ended: its messages, and the reason (None: a normal end)."""

    job: Any
    said: list[bytes]
    ended_by: str | None
    wall_s: float


@dataclass
class _Running:
    job: Any
    process: Any
    pipe: Connection
    started: float
    base: int = 0
    said: list[bytes] = field(default_factory=list)
    open: bool = True


def run_each(
    jobs: Sequence[Any], target: Target, arguments: Callable[[Any], tuple[Any, ...]], *, parallel: int, limits: Limits,
    preload: Sequence[str] = (),
) -> Iterator[Ended]:  # fmt: skip
    """Calls `target(*arguments(job), pipe)` in a separate process for each job; yields them as they end.

    `target` sends bytes through `pipe`. A process that takes longer or more memory than its limit is killed; what it
    sent before is kept.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(_start(context, waiting.pop(), target, arguments))
            wait([one.pipe for one in running if one.open], timeout=_LOOK_S)
            for one in list(running):
                ended_by = _look(one, limits)
                if ended_by == "":
                    continue
                running.remove(one)
                yield Ended(one.job, one.said, ended_by, time.monotonic() - one.started)
    finally:
        for one in running:
            one.process.kill()
            one.process.join()


@contextmanager
def within(time_s: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread if the block takes longer; for one step of a process with several."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took longer than {time_s:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, time_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _start(context: Any, job: Any, target: Target, arguments: Callable[[Any], tuple[Any, ...]]) -> _Running:
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments(job), writing), daemon=True)
    process.start()
    writing.close()
    return _Running(job, process, reading, time.monotonic(), base=resident_bytes(process.pid))


def _look(one: _Running, limits: Limits) -> str | None:
    """Returns an empty text while it runs; None after a normal end; otherwise the reason that ended it."""
    _hear(one)
    if not one.open:
        one.process.join(timeout=limits.time_s)
        code = one.process.exitcode
        return None if code == 0 else f"crashed: the process ended with {_exit_text(code)}"
    if time.monotonic() - one.started > limits.time_s:
        return _kill(one, f"timeout: longer than the time limit of {limits.time_s:g} s")
    taken = resident_bytes(one.process.pid) - one.base
    if taken > limits.memory_bytes:
        return _kill(one, f"memory: {taken / 2**30:.1f} GiB is over the memory limit of "
                          f"{limits.memory_bytes / 2**30:g} GiB")  # fmt: skip
    return ""


def _hear(one: _Running) -> None:
    while one.open and one.pipe.poll():
        try:
            one.said.append(one.pipe.recv_bytes())
        except (EOFError, OSError):
            one.open = False


def _kill(one: _Running, why: str) -> str:
    one.process.kill()
    one.process.join()
    _hear(one)
    return why


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
