"""Ctrl-C in two steps: the first lets calls in flight finish, the second stops them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class StopSignal:
    """The request to stop, for one event loop."""

    def __init__(self) -> None:
        self._drain = asyncio.Event()
        self._now = asyncio.Event()

    @property
    def immediate(self) -> bool:
        return self._now.is_set()

    def drain(self) -> None:
        """Starts no new rows; those in flight may finish. A second call stops them."""
        if self._drain.is_set():
            self._now.set()
        self._drain.set()

    def now(self) -> None:
        """Stops the rows in flight, too."""
        self._drain.set()
        self._now.set()

    async def wait_drain(self) -> None:
        await self._drain.wait()

    async def wait_now(self) -> None:
        await self._now.wait()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP drain while the context is open. For the main thread's event loop. A SIGHUP that
        is ignored, as under nohup, stays ignored."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGINT: self.drain, signal.SIGTERM: self.drain}
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = self._hang_up
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _hang_up(self) -> None:
        """Drains, once: the kernel and the shell both report that the terminal is gone."""
        for stream in (sys.stdout, sys.stderr):
            _leave_terminal(stream)
        if not self._drain.is_set():
            self.drain()


def _leave_terminal(stream: TextIO) -> None:
    """Discards output to a terminal that is gone: each write would be an error."""
    try:
        termios.tcgetattr(stream.fileno())
    except termios.error as error:
        if error.args[0] == errno.EIO:  # any other: it is a file or a pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return  # a stream without a descriptor
