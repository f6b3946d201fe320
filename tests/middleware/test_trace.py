"""The trace: what a caller sees of a request's times, target and cost."""

from __future__ import annotations

import asyncio

import pytest

from engine import Request
from engine.core.errors import ServerFailed
from engine.core.request import Attempt, Context, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock
from engine.middleware import trace
from engine.schemas.policy import PolicySpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request


class Tried:
    """Notes attempts that it never made, and answers after a second."""

    def __init__(self, *attempts: Attempt) -> None:
        self.attempts = list(attempts)
        self.current: Attempt | None = None

    async def __call__(self, request: Request, context: Context) -> Result:
        context.record.attempts += self.attempts
        context.attempt = self.current
        await asyncio.sleep(1.0)
        return Result("r", {})


def attempt(target: str, cost: float | None = None, counted: bool = True, estimated: bool = False) -> Attempt:
    return Attempt(target, usage=Usage(1, 1, estimated=estimated) if counted else None, cost=cost)


def answered(cost: float | None) -> Attempt:
    """One that succeeded, and whose usage nobody counted."""
    return Attempt("a", outcome="ok", cost=cost)


@in_virtual_time
async def test_it_times_a_request_from_its_submission_whatever_becomes_of_it(clock: VirtualClock) -> None:
    await asyncio.sleep(5.0)
    mine = context(clock)
    await asyncio.sleep(2.0)
    await chain([trace], branch(clock, PolicySpec()), Scripted(1.0))(request(), mine)
    assert mine.record.total_s == pytest.approx(3.0)
    assert (mine.record.target, mine.record.cost, mine.record.first_token_s) == (None, None, None)
    mine = context(clock)
    await asyncio.sleep(2.0)
    with pytest.raises(ServerFailed):
        await chain([trace], branch(clock, PolicySpec()), Scripted(ServerFailed("boom")))(request(), mine)
    assert mine.record.total_s == pytest.approx(2.0)
    mine = context(clock)
    task = asyncio.create_task(chain([trace], branch(clock, PolicySpec()), Scripted(50.0))(request(), mine))
    await asyncio.sleep(4.0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert mine.record.total_s == pytest.approx(4.0)


@in_virtual_time
async def test_the_target_is_that_of_the_attempt_that_counts_else_of_the_last_one(clock: VirtualClock) -> None:
    executor = Tried(attempt("one"), attempt("two"), attempt("three"))
    for current, target in ((executor.attempts[1], "two"), (None, "three")):
        executor.current = current
        mine = context(clock)
        await chain([trace], branch(clock, PolicySpec()), executor)(request(), mine)
        assert mine.record.target == target


@pytest.mark.parametrize(
    ("attempts", "cost"),
    [
        ([attempt("a", 0.5), attempt("b", 0.25)], 0.75),
        ([attempt("a", 0.5), attempt("b")], None),
        ([attempt("a", 0.5), attempt("b", counted=False)], 0.5),
        ([attempt("a", counted=False)], None),
        ([attempt("a", counted=False), attempt("b", counted=False)], None),
        ([attempt("a", 0.5), answered(None)], None),
        ([attempt("a", 0.5), answered(0.25)], 0.75),
    ],
)
def test_the_cost_is_the_sum_of_all_attempts_and_never_too_low(attempts: list[Attempt], cost: float | None) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = context(clock)
        await chain([trace], branch(clock, PolicySpec()), Tried(*attempts))(request(), mine)
        assert mine.record.cost == cost

    scenario()


@pytest.mark.parametrize(
    ("attempts", "estimated"),
    [
        ([attempt("a", 0.5)], False),
        ([attempt("a", 0.5, estimated=True)], True),
        ([attempt("a", estimated=True)], False),
        ([answered(0.5)], False),
        ([attempt("a", 0.5), attempt("b", 0.25)], False),
        ([attempt("a", 0.5, estimated=True), attempt("b", 0.25)], True),
        ([attempt("a", 0.5), attempt("b", 0.25, estimated=True)], True),
        ([attempt("a", 0.5), answered(0.25)], False),
        ([attempt("a", 0.5, estimated=True), attempt("b")], False),
        ([attempt("a", counted=False), attempt("b", counted=False)], False),
    ],
)
def test_a_cost_is_an_estimate_where_any_part_of_it_is(attempts: list[Attempt], estimated: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = context(clock)
        await chain([trace], branch(clock, PolicySpec()), Tried(*attempts))(request(), mine)
        assert mine.record.cost_estimated is estimated

    scenario()


@pytest.mark.parametrize("primed", [False, True])
def test_a_stream_is_timed_to_its_first_chunk_and_to_its_end(primed: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        async def chunks() -> object:
            for _ in range(3):
                await asyncio.sleep(1.0)
                yield Chunk({})

        async def executor(asked: Request, mine: Context) -> Result:
            stream = ChunkStream(chunks())  # type: ignore[arg-type]
            if primed:
                await stream.prime()
            return Result("r", stream=stream)

        await asyncio.sleep(5.0)
        mine = context(clock, stream=True)
        await asyncio.sleep(2.0)
        result = await chain([trace], branch(clock, PolicySpec()), executor)(request(), mine)
        assert result.stream is not None
        assert mine.record.total_s == 0.0
        assert len([chunk async for chunk in result.stream]) == 3
        assert mine.record.first_token_s == pytest.approx(3.0)
        assert mine.record.total_s == pytest.approx(5.0)

    scenario()
