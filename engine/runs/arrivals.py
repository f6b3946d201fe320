"""Starts rows: as soon as there is room, at their own times, or when a user gets to them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from random import Random

from engine.core.errors import SetupError
from engine.runs.in_flight import InFlight
from engine.runs.pending_rows import PendingRows
from engine.runs.reader import Reader, ThreadReader
from engine.workloads.open import ClosedLoop, Row, Source

_STANDSTILL_ROWS = 20_000
"""Rows in one instant of virtual time after which the clock counts as stuck."""

log = logging.getLogger("engine.runs")


class Arrivals:
    """Reads a source and starts its rows."""

    def __init__(
        self, source: Source, serving: InFlight, rest: PendingRows, virtual: bool, say: Callable[[str], None]
    ) -> None:
        self.exhausted = False
        self.timed = False
        """True when the rows have arrival times of their own."""
        self.held_back = 0
        """Rows that could not start at their time, because the window was full."""
        self.held_back_s = 0.0
        """The longest such delay, in seconds."""
        self.began_at: float | None = None
        """Start of the traffic, or its continuation after an earlier session; seconds of the loop's clock."""
        self._serving = serving
        self._source = source
        self._rest = rest
        self._virtual = virtual
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._zero = 0.0
        """The loop's time at 0 s of the traffic."""
        self._coming: deque[tuple[Row, int, float]] = deque()
        self._holding = False
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self, earlier_s: float) -> None:
        """Starts every row, and returns when all have started. `earlier_s`: the time that earlier sessions took."""
        inline = self._virtual or self._source.made
        kind = Reader if inline else ThreadReader
        self._reader = kind(self._rest, self._source.live)
        try:
            closed = self._source.closed_loop
            if closed is None:
                await self._read_all()
            else:
                await self._serve_users(closed, earlier_s)
        finally:
            self._reader.close()
        self.exhausted = True

    async def _read_all(self) -> None:
        serving = self._serving
        while True:
            if not self.timed:
                await serving.wait_room()
            rows = await self._reader.read(max(1, serving.room))
            if not rows:
                return
            for row, digest in rows:
                if row.at_s is None:
                    serving.start(row, digest)
                else:
                    self._coming.append((row, digest, row.at_s))
            if self._coming:
                await self._start_in_time()

    # -- open loop ----------------------------------------------------------------------------------------------

    async def _start_in_time(self) -> None:
        """Starts each row when its time has come and there is room for it."""
        if not self.timed:
            self.timed = True
            await self._begin(self._coming[0][2])
        try:
            while self._coming:
                self._waiting = self._loop.create_future()
                self._arrive()
                await self._waiting
                if self._coming:
                    await self._serving.wait_room()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    def _arrive(self) -> None:
        """Starts what is due and sets the alarm for the next row; a coroutine that sleeps would cost twice as much."""
        coming, now = self._coming, self._loop.time()
        while coming:
            row, digest, at_s = coming[0]
            late_s = now - self._zero - at_s
            if late_s < 0:
                self._holding = False
                self._alarm = self._loop.call_at(self._zero + at_s, self._arrive)
                return
            if self._serving.room <= 0:
                self._hold_back(at_s)
                break
            if self._holding:
                self.held_back += 1
                self.held_back_s = max(self.held_back_s, late_s)
            coming.popleft()
            self._serving.start(row, digest)
        if not self._waiting.done():
            self._waiting.set_result(None)

    def _hold_back(self, at_s: float) -> None:
        self._holding = True
        if not self.held_back:
            text = (
                f"rows are held back from {at_s:.1f} s on: output.window rows are in flight; "
                "raise output.window to keep their times"
            )
            log.warning(text)
            self._say(text)

    async def _begin(self, at_s: float) -> None:
        """Moves the clock, in virtual time, to where an earlier session stopped, so that time-dependent state fits."""
        if not self._rest.passed:  # no row came before these: their times count from now
            self._zero = self.began_at = self._loop.time()
            return
        if self._virtual:
            await asyncio.sleep(at_s)
        self.began_at = self._loop.time()
        self._zero = self.began_at - at_s

    # -- closed loop --------------------------------------------------------------------------------------------

    async def _serve_users(self, loop: ClosedLoop, earlier_s: float) -> None:
        if self._virtual and earlier_s:
            await asyncio.sleep(earlier_s)
        self.began_at = self._loop.time()
        until = None if loop.duration_s is None else self.began_at - earlier_s + loop.duration_s
        users = [
            asyncio.create_task(self._serve_user(loop, Random(f"{loop.seed} user {number}"), until))
            for number in range(loop.users)
        ]
        try:
            await asyncio.gather(*users)
        finally:
            for user in users:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)

    async def _serve_user(self, loop: ClosedLoop, rng: Random, until: float | None) -> None:
        while True:
            if loop.think_s:
                await asyncio.sleep(rng.expovariate(1 / loop.think_s))
            await self._serving.wait_room()
            if until is not None:
                if self._loop.time() >= until:
                    return
                self._refuse_standstill()
            rows = await self._reader.read(1)
            if not rows:
                return
            # The user may be cancelled; the call continues.
            await asyncio.shield(self._serving.start(*rows[0]))

    def _refuse_standstill(self) -> None:
        """Raises SetupError for users who send requests and get answers forever within one instant."""
        now = self._loop.time()
        if not self._virtual or now != self.began_at:
            return
        if self._rest.rows >= _STANDSTILL_ROWS:
            raise SetupError(
                "workload.duration_s: virtual time can't advance, because neither answers nor users take any; "
                "set provider.latency_s or workload.think_s, or use workload.limit in place of the duration"
            )
