"""A chunk source whose every step has a limit: what it passes on, what it closes."""

from __future__ import annotations

import asyncio

import pytest

from engine.core.errors import TimedOut
from engine.core.stream import Chunk
from engine.core.virtual_time import VirtualClock
from engine.core.watchdog import Watchdog
from engine.middleware.stream_timeout import BoundedSource
from tests.middleware.chain import in_virtual_time


class Source:
    """A chunk after so many seconds, again and again; says how often it was closed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Chunk:
        await asyncio.sleep(self.seconds)
        return Chunk({})

    async def aclose(self) -> None:
        self.closed += 1


class Plain:
    """A source that has nothing to close."""

    def __aiter__(self) -> Plain:
        return self

    async def __anext__(self) -> Chunk:
        await asyncio.sleep(10.0)
        raise StopAsyncIteration


def bounded(source: Source | Plain, clock: VirtualClock, limit_s: float | None) -> BoundedSource:
    def until() -> float | None:
        return None if limit_s is None else clock.monotonic() + limit_s

    return BoundedSource(source, until, lambda: TimedOut("too slow"), Watchdog())


@in_virtual_time
async def test_each_step_has_the_whole_limit(clock: VirtualClock) -> None:
    source = bounded(Source(4.0), clock, 5.0)
    chunks = [await anext(source) for _ in range(5)]
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert clock.monotonic() == pytest.approx(20.0)


@in_virtual_time
async def test_a_step_that_takes_too_long_closes_the_source(clock: VirtualClock) -> None:
    source = Source(50.0)
    with pytest.raises(TimedOut, match="too slow") as caught:
        await anext(bounded(source, clock, 5.0))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert clock.monotonic() == pytest.approx(5.0)
    assert source.closed == 1


@in_virtual_time
async def test_without_a_limit_it_passes_everything_on(clock: VirtualClock) -> None:
    assert isinstance(await anext(bounded(Source(1e6), clock, None)), Chunk)
    with pytest.raises(StopAsyncIteration):
        await anext(bounded(Plain(), clock, None))


@in_virtual_time
async def test_closing_it_closes_what_can_be_closed(clock: VirtualClock) -> None:
    source = Source(1.0)
    await bounded(source, clock, 5.0).aclose()
    assert source.closed == 1
    await bounded(Plain(), clock, 5.0).aclose()
    with pytest.raises(TimedOut):
        await anext(bounded(Plain(), clock, 5.0))


@in_virtual_time
async def test_a_true_end_is_an_end(clock: VirtualClock) -> None:
    with pytest.raises(StopAsyncIteration):
        await anext(bounded(Plain(), clock, 50.0))
    await asyncio.sleep(100.0)
