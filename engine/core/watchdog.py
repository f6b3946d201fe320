"""Limits on how long a task may wait, cheaper than a timer each: nearly all of them are lifted long before they end."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

GRAIN_S = 0.25
"""Limits that end within so many seconds of each other share a timer, until that time has come."""


class Watchdog:
    """The limits of one event loop. A limit that is lifted in time costs a place in a dictionary, and no timer.

    A limit that is still there when its grain of time begins gets a timer of its own, so it ends exactly.
    """

    def __init__(self) -> None:
        self._grains: dict[int, dict[Watch, None]] = {}
        self._order: list[int] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_grain = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> Watch:
        """A limit for the task that runs now, which does not end yet."""
        return Watch(self)

    def file(self, watch: Watch) -> None:
        """Takes a limit in."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        grain = int(watch.at / GRAIN_S)
        held = self._grains.get(grain)
        if held is None:
            if grain * GRAIN_S <= loop.time():
                watch.timer = loop.call_at(watch.at, watch.expire)
                return
            held = self._grains[grain] = {}
            heapq.heappush(self._order, grain)
            if self._timer is None or grain < self._timer_grain:
                self._set_timer(loop, grain)
        held[watch] = None
        watch.held = held
        self._count += 1

    def forget(self, watch: Watch, held: dict[Watch, None]) -> None:
        """Lifts a limit."""
        del held[watch]
        self._count -= 1

    def _set_timer(self, loop: asyncio.AbstractEventLoop, grain: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_grain = grain
        self._timer = loop.call_at(grain * GRAIN_S, self._begin_grain)

    def _begin_grain(self) -> None:
        """The time of a grain has come: what is still in it gets exact timers."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._order and (self._order[0] * GRAIN_S <= now or not self._count):
            held = self._grains.pop(heapq.heappop(self._order))
            self._count -= len(held)
            for watch in held:
                watch.held = None
                watch.timer = loop.call_at(watch.at, watch.expire)
        if self._order:
            self._set_timer(loop, self._order[0])


class Watch:
    """One limit on one task. When it ends the task is cancelled; `close` tells whether that was why."""

    __slots__ = ("_cancelling", "_dog", "_expired", "_task", "at", "held", "timer")

    def __init__(self, dog: Watchdog) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._dog = dog
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self.at = 0.0
        """Its end, in seconds of the loop's time."""
        self.held: dict[Watch, None] | None = None
        """Its position in the watchdog's list."""
        self.timer: asyncio.TimerHandle | None = None

    def until(self, at: float) -> None:
        """Sets when the limit ends; again for another time."""
        self._lift()
        self.at = at
        self._dog.file(self)

    def close(self) -> bool:
        """Lifts the limit. True: it had ended, and the CancelledError that came is its own."""
        self._lift()
        return self._expired and self._task.uncancel() <= self._cancelling

    def expire(self) -> None:
        """The limit has ended."""
        self.timer = None
        self._expired = True
        self._task.cancel()

    def _lift(self) -> None:
        if self.held is not None:
            self._dog.forget(self, self.held)
            self.held = None
        elif self.timer is not None:
            self.timer.cancel()
            self.timer = None
