"""engine/core/virtual_time.py."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from engine.core.virtual_time import VirtualClock, run


def test_an_hour_of_sleep_passes_at_once_and_the_clock_says_so() -> None:
    async def sleep(clock: VirtualClock) -> tuple[float, float]:
        before = clock.wall()
        await asyncio.sleep(3600)
        return clock.monotonic(), clock.wall() - before

    assert run(sleep) == (3600.0, 3600.0)


def test_timers_of_one_instant_run_in_the_order_in_which_they_were_set() -> None:
    async def ring(clock: VirtualClock) -> list[int]:
        rung: list[int] = []
        for number in (3, 1, 2):
            asyncio.get_running_loop().call_at(5.0, rung.append, number)
        await asyncio.sleep(6)
        return rung

    assert run(ring) == [3, 1, 2]


def test_the_clock_reads_exactly_the_time_of_a_timer() -> None:
    async def ring(clock: VirtualClock) -> list[float]:
        read: list[float] = []
        for when in (0.1, 0.2, 0.30000000000000004):
            asyncio.get_running_loop().call_at(when, lambda: read.append(clock.monotonic()))
        await asyncio.sleep(1)
        return read

    assert run(ring) == [0.1, 0.2, 0.30000000000000004]


def test_timeouts_that_did_not_fire_leave_no_trace() -> None:
    async def work(clock: VirtualClock) -> float:
        for _ in range(1000):
            async with asyncio.timeout(600):
                await asyncio.sleep(0.001)
        return clock.monotonic()

    assert run(work) == pytest.approx(1.0)


def test_a_timeout_fires_at_its_time() -> None:
    async def work(clock: VirtualClock) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.sleep(60)
        return clock.monotonic()

    assert run(work) == 7.0


def test_a_wait_that_nothing_can_end_is_an_error_and_not_a_hang() -> None:
    async def wait(clock: VirtualClock) -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="virtual time can't advance"):
        run(wait)


def test_a_signal_is_seen_while_time_flies() -> None:
    async def work(clock: VirtualClock) -> bool:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            for _ in range(100_000):
                await asyncio.sleep(1)
                if came.is_set():
                    return True
            return False
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    assert run(work)
