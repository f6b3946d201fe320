"""What goes together on a model in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.runtimes.batcher import Batcher

Batches = list[list[Any]]


@asynccontextmanager
async def batcher(
    run: Callable[[list[Any]], list[Any]] | None = None, threads: int = 1, max_rows: int = 8, max_tokens: int = 100
) -> AsyncIterator[tuple[Batcher, Batches, threading.Event]]:
    """A batcher, the batches that it has begun, and what each of them waits for before it ends."""
    begun: Batches = []
    go_on = threading.Event()

    def noting(contents: list[Any]) -> list[Any]:
        begun.append(contents)
        go_on.wait(10)
        return run(contents) if run is not None else [content * 10 for content in contents]

    made = Batcher(noting, "test", max_rows=max_rows, max_tokens=max_tokens, threads=threads)
    try:
        yield made, begun, go_on
    finally:
        go_on.set()
        await asyncio.to_thread(made.close)


async def waiting(made: Batcher, *items: tuple[Any, int], kind: Any = "a") -> list[asyncio.Task[Any]]:
    """Asks for each content with so many tokens, in this order."""
    tasks = [asyncio.ensure_future(made.compute(content, kind, tokens)) for content, tokens in items]
    await asyncio.sleep(0)
    return tasks


async def computing(made: Batcher, begun: Batches, *items: tuple[Any, int]) -> list[asyncio.Task[Any]]:
    """Asks for each content, and returns when each is a batch under way."""
    tasks = await waiting(made, *items)
    async with asyncio.timeout(10):
        while len(begun) < len(items):  # noqa: ASYNC110 - a thread of the batcher makes it true
            await asyncio.sleep(0.001)
    return tasks


async def test_what_comes_while_one_is_computed_goes_together() -> None:
    async with batcher() as (made, begun, go_on):
        first = await computing(made, begun, (1, 5))
        rest = await waiting(made, *((index, 5) for index in range(2, 6)))
        go_on.set()
        assert await asyncio.gather(*first, *rest) == [10, 20, 30, 40, 50]
        assert begun == [[1], [2, 3, 4, 5]]
        assert (made.counts.batches, made.counts.rows, made.counts.largest) == (2, 5, 4)


async def test_the_nearest_in_length_go_first_and_nothing_is_padded_much() -> None:
    async with batcher() as (made, begun, go_on):
        first = await computing(made, begun, ("first", 5))
        rest = await waiting(made, ("a", 30), ("b", 50), ("c", 31), ("d", 49))
        go_on.set()
        await asyncio.gather(*first, *rest)
        assert begun == [["first"], ["a", "c"], ["b", "d"]]


async def test_rows_and_tokens_have_bounds_but_one_item_goes_at_least() -> None:
    async with batcher(max_rows=3) as (made, begun, go_on):
        first = await computing(made, begun, ("first", 500))
        rest = await waiting(made, *((index, 10) for index in range(4)), *((index, 40) for index in range(4, 7)))
        go_on.set()
        await asyncio.gather(*first, *rest)
        assert begun == [["first"], [0, 1, 2], [3], [4, 5], [6]]


async def test_items_of_several_rows_stay_together() -> None:
    async with batcher(max_rows=5) as (made, begun, go_on):
        first = await computing(made, begun, ("first", 5))
        rest = [asyncio.ensure_future(made.compute(rows, "a", 5, rows)) for rows in (3, 2, 4)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*first, *rest)
        assert begun == [["first"], [3, 2], [4]]
        assert made.counts.rows == 10


async def test_two_kinds_never_go_together_and_none_is_always_alone() -> None:
    async with batcher() as (made, begun, go_on):
        first = await computing(made, begun, (1, 5))
        rest = [
            *await waiting(made, (2, 5)),
            *await waiting(made, (3, 5), kind="b"),
            *await waiting(made, (4, 5), (5, 5), kind=None),
            *await waiting(made, (6, 5)),
        ]
        go_on.set()
        await asyncio.gather(*first, *rest)
        assert begun == [[1], [2, 6], [3], [4], [5]]


async def test_no_thread_takes_more_than_its_share() -> None:
    async with batcher(threads=2, max_rows=100, max_tokens=10_000) as (made, begun, go_on):
        first = await computing(made, begun, (0, 5), (1, 5))
        rest = await waiting(made, *((index, 5) for index in range(2, 12)))
        go_on.set()
        await asyncio.gather(*first, *rest)
        assert sum(map(len, begun)) == 12
        assert max(map(len, begun)) in (5, 6), "what the other still computes counts, too"


async def test_a_caller_who_leaves_takes_its_item_away() -> None:
    async with batcher() as (made, begun, go_on):
        first = await computing(made, begun, (1, 5))
        left, stays = await waiting(made, (2, 5), (3, 5))
        left.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*first, stays) == [10, 30]
        assert begun == [[1], [3]]


async def test_what_does_not_fit_the_memory_goes_in_halves_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    def small(contents: list[int]) -> list[int]:
        if len(contents) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return contents

    async with batcher(small) as (made, begun, go_on):
        first = await computing(made, begun, (0, 5))
        rest = await waiting(made, *((index, 5) for index in range(1, 6)))
        go_on.set()
        assert await asyncio.gather(*first, *rest) == [0, 1, 2, 3, 4, 5]
    assert "test: 5 rows at once do not fit the memory" in caplog.text
    assert caplog.text.count("do not fit the memory") == 2


async def test_one_bad_item_fails_alone() -> None:
    def picky(contents: list[int]) -> list[int]:
        if 3 in contents:
            raise ValueError("no threes")
        return contents

    async with batcher(picky) as (made, begun, go_on):
        first = await computing(made, begun, (0, 5))
        rest = await waiting(made, *((index, 5) for index in range(1, 5)))
        go_on.set()
        found = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert found[:3] + found[4:] == [0, 1, 2, 4]
        assert isinstance(found[3], ValueError)


async def test_what_waits_when_it_closes_fails_and_what_comes_later_too() -> None:
    async with batcher() as (made, begun, go_on):
        first = await computing(made, begun, (1, 5))
        late = await waiting(made, (2, 5))
        closing = asyncio.ensure_future(asyncio.to_thread(made.close))
        with pytest.raises(RuntimeError, match="the model was closed"):
            await asyncio.wait_for(late[0], 10)
        go_on.set()
        await closing
        assert await asyncio.gather(*first) == [10]
        with pytest.raises(RuntimeError, match="the model was closed"):
            await made.compute(3, "a", 5)
