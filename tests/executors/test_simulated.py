"""The simulated provider in the process: in virtual time, so that every second is exact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import pytest

from engine import Engine, InferenceError, Request
from engine.config.compose import compose
from engine.core.request import Context, EngineRecord
from engine.core.stream import ChunkStream
from engine.core.virtual_time import VirtualClock, run
from engine.executors.simulated import SimulatedExecutor
from engine.schemas import RunSpec
from engine.schemas.simulated import SimulatedProviderSpec

T = TypeVar("T")


@cache
def said(*overrides: str) -> RunSpec:
    return compose(["provider=simulated", *overrides]).spec


def simulate(
    act: Callable[[Engine, VirtualClock], Coroutine[Any, Any, T]], *overrides: str, seed: int = 0, **provider: Any
) -> T:
    """What `act` finds with an engine over one simulated provider, in virtual time."""
    spec = said(*overrides).model_copy(
        update={"provider": SimulatedProviderSpec(kind="simulated", **provider), "seed": seed}
    )

    async def inside(clock: VirtualClock) -> T:
        async with Engine(spec, clock=clock) as engine:
            return await act(engine, clock)

    return run(inside)


def executor(engine: Engine) -> SimulatedExecutor:
    found = engine.pipeline.target_chains[0].executor
    assert isinstance(found, SimulatedExecutor)
    return found


def question(**body: Any) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": "hello there"}], **body})


def test_an_answer_takes_its_latency_and_its_tokens() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> float:
        assert (await engine.submit(question())).ok
        return clock.monotonic()

    assert simulate(act, latency_s=2, token_s=0.5, output_tokens=5) == 2 + 4 * 0.5


def test_a_streams_tokens_come_at_their_times() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> list[float]:
        return [clock.monotonic() async for _ in engine.stream(question())]

    assert simulate(act, latency_s=2, token_s=0.5, output_tokens=3) == [2, 2.5, 3, 3]


def test_the_answer_says_that_it_is_simulated_and_why_it_ends() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        return (await engine.submit(question(max_tokens=2))).body

    body = simulate(act)
    assert body["choices"][0]["message"]["content"] == "[simulated] word2"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_an_outage_begins_and_ends_on_time() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> list[str | None]:
        words = []
        for _ in range(6):
            result = await engine.submit(question())
            words.append(result.error.kind if result.error else None)
            await asyncio.sleep(10)
        return words

    outage = [{"kind": "connect", "from_s": 20, "to_s": 40}]
    assert simulate(act, "policy=off", faults=outage) == [None, None, "connect", "connect", None, None]


def test_a_revoked_key_is_left_out_and_the_other_one_goes_on() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> tuple[bool, Any]:
        fine = True
        for _ in range(10):
            fine = fine and (await engine.submit(question())).ok
            await asyncio.sleep(20)
        return fine, executor(engine).counters.keys

    fine, keys = simulate(act, keys=2, faults=[{"kind": "auth", "key": "sim_1", "from_s": 60}])
    assert fine
    assert keys["sim_1"].refused == 2  # it had worked, so a second request decides
    assert keys["sim_1"].served + keys["sim_2"].served == 10


def test_the_keys_share_the_calls() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> list[int]:
        for _ in range(9):
            await engine.submit(question())
        return [key.served for key in executor(engine).counters.keys.values()]

    assert simulate(act, keys=3) == [3, 3, 3]


def test_goodput_beyond_full_speed_is_the_capacity() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> tuple[float, int]:
        async def client() -> None:
            while clock.monotonic() < 600:
                await engine.submit(question())

        await asyncio.gather(*(client() for _ in range(16)))
        counters = executor(engine).counters
        return counters.served / clock.monotonic(), counters.peak_in_flight

    rate, peak = simulate(act, "policy=off", latency_s=1, capacity={"full_speed": 4})
    assert peak == 16
    assert rate == pytest.approx(4, rel=0.02)


def test_the_same_seed_gives_the_same_run() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        async def client() -> None:
            for _ in range(20):
                await engine.submit(question())

        await asyncio.gather(*(client() for _ in range(10)))
        return executor(engine).counters.as_dict(), clock.monotonic(), engine.report()["outcomes"]

    day = {
        "latency_s": 1,
        "latency_distribution": "lognormal",
        "capacity": {"concurrency": 8},
        "faults": [{"kind": "server", "rate": 0.1}, {"kind": "brownout", "share": 0.5, "every_s": 20, "for_s": 10}],
    }
    assert simulate(act, seed=1, **day) == simulate(act, seed=1, **day)
    assert simulate(act, seed=1, **day) != simulate(act, seed=2, **day)


def test_a_cancelled_call_gives_its_place_back() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.submit(question()), 1)
        return executor(engine).counters

    counters = simulate(act, latency_s=5)
    assert (counters.in_flight, counters.left, counters.served) == (0, 1, 0)


def test_a_stream_that_is_left_gives_its_place_back() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        chunks = engine.stream(question())
        await anext(chunks)
        await chunks.aclose()
        return executor(engine).counters

    counters = simulate(act, token_s=1)
    assert (counters.in_flight, counters.left) == (0, 1)


def test_a_stream_that_nobody_read_gives_its_place_back() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        context = Context(EngineRecord(), clock.monotonic(), stream=True)
        result = await executor(engine)(question(), context)
        assert isinstance(result.stream, ChunkStream)
        assert executor(engine).counters.in_flight == 1
        await result.stream.aclose()
        return executor(engine).counters

    counters = simulate(act)
    assert (counters.in_flight, counters.left) == (0, 1)


def test_a_silent_provider_costs_the_callers_own_patience() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> tuple[str, float]:
        result = await engine.submit(question())
        assert result.error is not None
        return result.error.kind, clock.monotonic()

    patience = ["policy.timeout.attempt_s=30", "policy.retry.max_retries=0"]
    assert simulate(act, *patience, faults=[{"kind": "silent"}]) == ("timeout", 30)


def test_a_refusals_hint_is_waited_out() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> tuple[bool, float]:
        result = await engine.submit(question())
        return result.ok, clock.monotonic()

    fault = {"kind": "throttled", "to_s": 7, "hint": "retry_after"}
    ok, took_s = simulate(act, faults=[fault])
    assert ok
    assert 7 <= took_s < 10


def test_the_limiter_learns_what_is_left_of_the_rates() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        result = await engine.submit(question())
        hints = result.engine.attempts[0].hints
        return hints() if hints is not None else None

    hints = simulate(act, capacity={"requests_per_min": 60, "tokens_per_min": 600})
    assert hints.requests == (60, 59, 1)
    assert hints.tokens == (600, 590, 1)


def test_an_embedding_has_one_unit_vector_for_each_text() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        return (await engine.submit(Request("embedding", {"input": ["a", "b", "a"]}))).body

    vectors = [item["embedding"] for item in simulate(act, dimensions=16)["data"]]
    assert [len(vector) for vector in vectors] == [16, 16, 16]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[1]) == pytest.approx(1)


@pytest.mark.parametrize("value", [None, [], [""], [1], 3])
def test_what_can_not_be_embedded_is_an_invalid_request(value: Any) -> None:
    async def act(engine: Engine, clock: VirtualClock) -> InferenceError | None:
        return (await engine.submit(Request("embedding", {"input": value}))).error

    error = simulate(act)
    assert error is not None
    assert error.kind == "invalid_request"


def test_what_it_can_not_do_it_refuses() -> None:
    async def act(engine: Engine, clock: VirtualClock) -> Any:
        return (await engine.submit(Request("speech", {"input": "hi", "voice": "v"}))).error

    error = simulate(act)
    assert error.kind == "invalid_request"
    assert "the simulated provider can't do speech; it does: chat, completion" in error.message
