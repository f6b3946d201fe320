"""An event loop in virtual time: when nothing is ready it jumps to its next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TURNS_A_POLL = 256
"""Discovery the kernel for a signal costs as much as a turn of the loop does."""
_FEW_TIMERS = 128


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For work without I/O: an hour of waiting passes in no time, in the same order every time.

    Timers that are due at once run in the order in which they were set. Signals are seen. Threads are not waited for:
    what one of them would bring comes at no certain virtual time.
    """

    # asyncio's own, which a loop with another idea of time has to share (BaseEventLoop, CPython 3.11 to 3.13).
    _ready: deque[asyncio.Handle]
    _stopping: bool
    _selector: selectors.BaseSelector

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        # Tuples, because comparing TimerHandles costs more than all else that a timer does.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._cancelled = 0
        self._turns = 0

    def time(self) -> float:
        return self._now

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]  # so that its cancellation is counted below
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]
            self._cancelled += 1
            if self._cancelled > _FEW_TIMERS and 2 * self._cancelled > len(self._timers):
                self._timers = [timer for timer in self._timers if timer[2] is not handle and not timer[2].cancelled()]
                heapq.heapify(self._timers)
                self._cancelled = 0

    def _run_once(self) -> None:
        """One turn: what is ready, or else what the next timers bring."""
        ready = self._ready
        self._turns += 1
        if self._turns % _TURNS_A_POLL == 0:
            self._poll()
        if not ready and not self._stopping:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        timers, ready = self._timers, self._ready
        while timers:
            when, _, handle = heapq.heappop(timers)
            handle._scheduled = False  # type: ignore[attr-defined]
            if handle.cancelled():
                self._cancelled -= 1
                continue
            self._now = max(self._now, when)
            ready.append(handle)
            while timers and timers[0][0] <= self._now:
                handle = heapq.heappop(timers)[2]
                handle._scheduled = False  # type: ignore[attr-defined]
                if handle.cancelled():
                    self._cancelled -= 1
                else:
                    ready.append(handle)
            return
        self._poll()  # there may be a signal
        if not ready:
            raise RuntimeError("virtual time can't advance: every task waits and there is no timer")

    def _poll(self) -> None:
        self._process_events(self._selector.select(0))  # type: ignore[attr-defined]


class VirtualClock:
    """The clock of a virtual-time loop; `wall` starts at `epoch`, seconds since 1970."""

    def __init__(self, loop: VirtualTimeLoop, epoch: float = 1_700_000_000.0) -> None:
        self._epoch = epoch
        self.monotonic = loop.time

    def wall(self) -> float:
        return self._epoch + self.monotonic()


def run(make: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Runs the coroutine that `make` gives for a clock to its end, in virtual time."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(make(VirtualClock(loop)))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
