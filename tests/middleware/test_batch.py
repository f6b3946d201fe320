"""Batches: what travels together, who gets which part, and what one bad row does."""

import asyncio
from typing import Any

import pytest
from chain import branch, chain, context, in_virtual_time

from engine import Request
from engine.errors import InferenceError, InvalidRequest, ServerFailed
from engine.middleware import batch, route
from engine.request import Context, Result, Usage
from engine.virtual_time import VirtualClock
from schemas.policy import BatchSpec, PolicySpec


class Embedder:
    """Embeds a text as [its length]; refuses the texts that it is told to refuse."""

    def __init__(self, refuse: str = "", error: InferenceError | None = None, seconds: float = 1.0) -> None:
        self.refuse = refuse
        self.error = error
        self.seconds = seconds
        self.calls: list[list[str]] = []

    async def __call__(self, request: Request, context: Context) -> Result:
        texts = request.body["input"]
        texts = texts if isinstance(texts, list) else [texts]
        self.calls.append(texts)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        if self.refuse and self.refuse in texts:
            raise InvalidRequest(f"can't embed {self.refuse!r}")
        data = [{"object": "embedding", "index": n, "embedding": [float(len(text))]} for n, text in enumerate(texts)]
        body = {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": len(texts)}}
        return Result(request.id or "", body, usage=Usage(input_tokens=len(texts)))


def embed(text: str | list[str], **fields: Any) -> Request:
    return Request("embedding", {"input": text, **fields})


def stage_of(clock: VirtualClock, executor: Embedder, **fields: Any) -> Any:
    return chain([route, batch], branch(clock, PolicySpec(batch=BatchSpec(**fields))), executor)


@in_virtual_time
async def test_requests_travel_together_and_each_gets_its_own_part(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_size=4, max_wait_s=0.01)
    texts: list[str | list[str]] = ["a", "bb", ["ccc", "dddd"], "eeeee"]
    results = await asyncio.gather(*(stage(embed(text), context(clock)) for text in texts))
    assert executor.calls == [["a", "bb", "ccc", "dddd", "eeeee"]]
    vectors = [[item["embedding"][0] for item in result.body["data"]] for result in results]
    assert vectors == [[1.0], [2.0], [3.0, 4.0], [5.0]]
    assert [[item["index"] for item in result.body["data"]] for result in results] == [[0], [0], [0, 1], [0]]
    assert sum(result.usage.input_tokens for result in results) == 5


@in_virtual_time
async def test_a_lonely_request_waits_no_longer_than_max_wait(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=0.0), max_wait_s=0.05)
    await stage(embed("a"), context(clock))
    assert clock.monotonic() == pytest.approx(0.05)


@in_virtual_time
async def test_what_arrives_during_the_calls_makes_the_next_batch_larger(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.0, max_calls=1)
    tasks = [asyncio.create_task(stage(embed("first"), context(clock)))]
    await asyncio.sleep(0.5)
    tasks += [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(8)]
    await asyncio.gather(*tasks)
    assert [len(call) for call in executor.calls] == [1, 8]


@in_virtual_time
async def test_different_parameters_never_share_a_call(clock: VirtualClock) -> None:
    executor = Embedder()
    stage = stage_of(clock, executor, max_wait_s=0.01)
    requests = [embed("a", dimensions=8), embed("b", dimensions=16), embed("c", dimensions=8)]
    await asyncio.gather(*(stage(request, context(clock)) for request in requests))
    assert sorted(executor.calls) == [["a", "c"], ["b"]]


@in_virtual_time
async def test_a_bad_row_fails_alone(clock: VirtualClock) -> None:
    executor = Embedder(refuse="bad")
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.01)
    texts = ["a", "b", "c", "bad", "d", "e", "f", "g"]
    outcomes = await asyncio.gather(*(stage(embed(text), context(clock)) for text in texts), return_exceptions=True)
    failed = [text for text, outcome in zip(texts, outcomes, strict=True) if isinstance(outcome, InvalidRequest)]
    assert failed == ["bad"]
    assert sum(isinstance(outcome, Result) for outcome in outcomes) == 7


@in_virtual_time
async def test_a_failure_of_the_endpoint_is_not_split(clock: VirtualClock) -> None:
    executor = Embedder(error=ServerFailed("down"))
    stage = stage_of(clock, executor, max_size=8, max_wait_s=0.01)
    outcomes = await asyncio.gather(*(stage(embed(f"t{n}"), context(clock)) for n in range(8)), return_exceptions=True)
    assert all(isinstance(outcome, ServerFailed) for outcome in outcomes)
    assert len(executor.calls) == 1


@in_virtual_time
async def test_one_callers_cancellation_leaves_the_others_alone(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(), max_size=3, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(3)]
    await asyncio.sleep(0.5)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert tasks[0].result().ok
    assert tasks[2].result().ok


@in_virtual_time
async def test_a_call_that_nobody_waits_for_is_stopped(clock: VirtualClock) -> None:
    stage = stage_of(clock, Embedder(seconds=1000.0), max_size=2, max_wait_s=0.01)
    tasks = [asyncio.create_task(stage(embed(f"t{n}"), context(clock))) for n in range(2)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(1.0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
