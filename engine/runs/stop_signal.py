"""Ctrl-C in two steps: the first lets what is under way finish, the second stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignal:
    """The wish to stop, for one event loop."""

    def __init__(self) -> None:
        self._drain = asyncio.Event()
        self._now = asyncio.Event()

    @property
    def immediate(self) -> bool:
        return self._now.is_set()

    def drain(self) -> None:
        """No new rows; those under way may finish. Called again, they may not."""
        if self._drain.is_set():
            self._now.set()
        self._drain.set()

    def now(self) -> None:
        """Stops what is under way too."""
        self._drain.set()
        self._now.set()

    async def wait_drain(self) -> None:
        await self._drain.wait()

    async def wait_now(self) -> None:
        await self._now.wait()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM drain while the context is open. For the main thread's event loop."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.drain)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
