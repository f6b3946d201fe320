"""The queue: bounded, in order of priority and age, leaking nothing."""

import asyncio
from itertools import count

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import QueueFull
from engine.middleware import queue
from engine.middleware.queue import PriorityGate
from engine.request import PRIORITIES
from engine.virtual_time import VirtualClock, run
from schemas.policy import PolicySpec, QueueSpec


def policy(**fields: object) -> PolicySpec:
    return PolicySpec(queue=QueueSpec(**fields))  # type: ignore[arg-type]


@in_virtual_time
async def test_a_queue_of_100_before_10_slots_lets_110_in(clock: VirtualClock) -> None:
    executor = Scripted(1.0)
    stage = chain([queue], branch(clock, policy(size=100, concurrency=10, on_full="reject")), executor)
    outcomes = await asyncio.gather(
        *(stage(request(str(n)), context(clock)) for n in range(200)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFull)]
    assert (len(outcomes) - len(refused), executor.peak) == (110, 10)
    assert "policy.queue.size" in refused[0].message


@in_virtual_time
async def test_waiting_at_a_full_queue_loses_nobody(clock: VirtualClock) -> None:
    executor = Scripted(1.0)
    stage = chain([queue], branch(clock, policy(size=1, concurrency=2, on_full="wait")), executor)
    results = await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(20)))
    assert len(results) == 20
    assert executor.peak == 2
    assert clock.monotonic() == pytest.approx(10.0)


@in_virtual_time
async def test_high_goes_before_normal_before_low_and_equals_in_order(clock: VirtualClock) -> None:
    executor = Scripted(1.0)
    stage = chain([queue], branch(clock, policy(concurrency=1)), executor)
    names = ["first", "low1", "low2", "normal1", "high1", "high2", "normal2"]
    await asyncio.gather(
        *(stage(request(name), context(clock, PRIORITIES.get(name.rstrip("12"), 1))) for name in names)
    )
    assert executor.order == ["first", "high1", "high2", "normal1", "normal2", "low1", "low2"]


@in_virtual_time
async def test_low_is_overtaken_for_at_most_twice_the_ageing_time(clock: VirtualClock) -> None:
    executor = Scripted(1.0)
    stage = chain([queue], branch(clock, policy(concurrency=1, ageing_s=5.0)), executor)

    async def high_traffic() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(stage(request(f"high{number}"), context(clock, 0)))
                await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as group:
        group.create_task(stage(request("first"), context(clock)))
        await asyncio.sleep(0)
        group.create_task(stage(request("low"), context(clock, 2)))
        group.create_task(high_traffic())
    # enqueued at 0 with two tiers of 5 s: a high one that came at 10 s or later is behind it
    assert executor.order.index("low") <= 12


@in_virtual_time
async def test_a_cancelled_waiter_gives_up_its_place_and_no_slot(clock: VirtualClock) -> None:
    made = branch(clock, policy(concurrency=1))
    stage = chain([queue], made, Scripted(1.0))
    gate: PriorityGate = made.resources.items("queue")[("queue", "t")]
    tasks = [asyncio.create_task(stage(request(str(n)), context(clock))) for n in range(5)]
    await asyncio.sleep(0.5)
    for task in tasks[1:4]:
        task.cancel()
    await asyncio.wait(tasks)
    assert (gate.active, gate.waiting) == (0, 0)
    assert tasks[4].result().body == {"answer": 2}


@in_virtual_time
async def test_a_slot_given_in_the_instant_of_a_cancellation_is_not_lost(clock: VirtualClock) -> None:
    gate = PriorityGate(QueueSpec(concurrency=1), clock)
    await gate.acquire(context(clock))
    waiter = asyncio.create_task(gate.acquire(context(clock)))
    await asyncio.sleep(0)
    gate.release()
    waiter.cancel()
    await asyncio.wait([waiter])
    assert (gate.active, gate.waiting) == (0, 0)


@in_virtual_time
async def test_a_closed_gate_cancels_who_waits_and_who_comes_but_nobody_inside(clock: VirtualClock) -> None:
    gate = PriorityGate(QueueSpec(concurrency=1), clock)
    await gate.acquire(context(clock))
    waiter = asyncio.create_task(gate.acquire(context(clock)))
    await asyncio.sleep(0)
    gate.close()
    latecomer = asyncio.create_task(gate.acquire(context(clock)))
    await asyncio.gather(waiter, latecomer, return_exceptions=True)
    assert waiter.cancelled()
    assert latecomer.cancelled()
    assert (gate.active, gate.waiting) == (1, 0)
    gate.release()
    assert gate.active == 0


@in_virtual_time
async def test_a_stream_holds_its_slot_until_it_ends(clock: VirtualClock) -> None:
    made = branch(clock, policy(concurrency=1))
    stage = chain([queue], made, Scripted(0.0))
    gate: PriorityGate = made.resources.items("queue")[("queue", "t")]
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    assert gate.active == 1
    assert len([chunk async for chunk in result.stream]) == 3
    assert gate.active == 0


@in_virtual_time
async def test_a_stream_left_before_its_first_chunk_gives_its_slot_back(clock: VirtualClock) -> None:
    made = branch(clock, policy(concurrency=1))
    stage = chain([queue], made, Scripted(0.0))
    gate: PriorityGate = made.resources.items("queue")[("queue", "t")]
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    await result.stream.aclose()
    assert gate.active == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 2), st.floats(0.1, 3), st.booleans()), max_size=25),
    st.integers(1, 4),
)
def test_the_gate_serves_in_the_order_of_a_naive_model(
    jobs: list[tuple[float, int, float, bool]], concurrency: int
) -> None:
    """Against sorting everybody who waits, at each moment that a slot is free, by enqueue time + tier × ageing."""

    async def scenario(clock: VirtualClock) -> None:
        gate = PriorityGate(QueueSpec(concurrency=concurrency, ageing_s=5.0), clock)
        order = count()
        waiting: list[tuple[float, int, int]] = []

        async def job(index: int, start: float, tier: int, hold: float, cancel: bool) -> None:
            await asyncio.sleep(start)
            mine = (clock.monotonic() + tier * 5.0, next(order), index)
            waiting.append(mine)
            try:
                async with asyncio.timeout(1.0 if cancel else None):
                    await gate.acquire(context(clock, tier))
            except TimeoutError:
                waiting.remove(mine)
                return
            assert gate.active <= concurrency
            assert mine[0] <= min(waiting)[0] + 1e-9
            waiting.remove(mine)
            await asyncio.sleep(hold)
            gate.release()

        await asyncio.gather(*(job(index, *spec) for index, spec in enumerate(jobs)))
        assert (gate.active, gate.waiting) == (0, 0)

    run(scenario)


@in_virtual_time
async def test_who_leaves_the_queue_has_waited_too(clock: VirtualClock) -> None:
    stage = chain([queue], branch(clock, policy(concurrency=1)), Scripted(10.0))
    first = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(0)
    mine = context(clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await stage(request(), mine)
    assert mine.record.queued_s == pytest.approx(3.0)
    await first
