"""An event loop in virtual time: when nothing is ready it jumps to its next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Polls, and moves the loop's clock by the time it was told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:  # a signal, say: it comes in the instant that has been reached
            return events
        if timeout is None:
            raise RuntimeError("virtual time stands still: every task waits and there is no timer")
        self.now += max(0.0, timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For work without I/O: an hour of waiting passes in no time, in the same order every time.

    Signals are seen. Threads are not waited for: what one of them would bring comes at no certain virtual time.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """The clock of a virtual-time loop; `wall` starts at `epoch`, seconds since 1970."""

    def __init__(self, loop: VirtualTimeLoop, epoch: float = 1_700_000_000.0) -> None:
        self._loop = loop
        self._epoch = epoch

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return self._epoch + self._loop.time()


def run(make: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Runs the coroutine that `make` gives for a clock to its end, in virtual time."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(make(VirtualClock(loop)))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
