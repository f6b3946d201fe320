"""The queue: bounded, in order of priority and age, leaking nothing."""

import asyncio
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.errors import DeadlineExceeded, QueueFull, ServerFailed
from engine.core.request import PRIORITIES, Context
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop, run
from engine.middleware import queue, retry
from engine.middleware.queue import PriorityGate
from engine.schemas.policy import PolicySpec, QueueSpec
from tests.middleware.chain import EXAMPLES, Scripted, branch, chain, context, in_virtual_time, request


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


def gate_of(clock: VirtualClock, **fields: Any) -> PriorityGate:
    return PriorityGate(QueueSpec(**fields), clock)


async def come(gate: PriorityGate, clock: VirtualClock, name: str, tier: int = 1) -> asyncio.Task[None]:
    """One who stands in the queue, or is past it already."""
    task = asyncio.create_task(gate.acquire(context(clock, tier), name))
    await asyncio.sleep(0)
    return task


def states(*tasks: asyncio.Task[None]) -> list[str]:
    def state(task: asyncio.Task[None]) -> str:
        if not task.done():
            return "waits"
        if task.cancelled():
            return "cancelled"
        return type(task.exception()).__name__ if task.exception() else "inside"

    return [state(task) for task in tasks]


@in_virtual_time
async def test_of_a_full_queue_the_one_that_would_be_served_last_is_evicted(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=3, concurrency=1, on_full="evict_lowest")
    inside = await come(gate, clock, "inside")
    low, lower, normal = [await come(gate, clock, name, tier) for name, tier in (("a", 2), ("b", 2), ("c", 1))]
    high = await come(gate, clock, "d", 0)
    await asyncio.sleep(0)
    assert states(inside, low, lower, normal, high) == ["inside", "waits", "QueueFull", "waits", "waits"]
    assert "evict_lowest" in str(lower.exception())
    another = await come(gate, clock, "e", 2)
    assert states(another) == ["QueueFull"]
    assert "policy.queue.size" in str(another.exception())
    assert "3 wait and 1 are in flight" in str(another.exception())
    gauges = gate.gauges()
    assert (gauges["queue_waiting"], gauges["queue_evicted"], gauges["queue_rejected"]) == (3, 1, 1)


@in_virtual_time
async def test_an_equal_newcomer_evicts_nobody(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=1, concurrency=1, on_full="evict_lowest")
    await come(gate, clock, "inside")
    first, second = await come(gate, clock, "first"), await come(gate, clock, "second")
    assert states(first, second) == ["waits", "QueueFull"]


@in_virtual_time
async def test_who_has_left_already_is_not_evicted(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=2, concurrency=1, on_full="evict_lowest")
    await come(gate, clock, "inside")
    low, left = await come(gate, clock, "low", 2), await come(gate, clock, "left", 2)
    left.cancel()
    await asyncio.wait([left])
    await come(gate, clock, "normal")
    await come(gate, clock, "high", 0)
    await asyncio.sleep(0)
    assert states(low, left) == ["QueueFull", "cancelled"]
    assert gate.evicted == 1


@in_virtual_time
async def test_no_room_at_all_means_that_nobody_waits(clock: VirtualClock) -> None:
    for on_full in ("reject", "evict_lowest"):
        gate = gate_of(clock, size=0, concurrency=1, on_full=on_full)
        first, second = await come(gate, clock, "first"), await come(gate, clock, "second", 0)
        assert states(first, second) == ["inside", "QueueFull"]


@in_virtual_time
async def test_on_full_reject_evicts_nobody_for_anybody(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=1, concurrency=1, on_full="reject")
    await come(gate, clock, "inside")
    low, high = await come(gate, clock, "low", 2), await come(gate, clock, "high", 0)
    assert states(low, high) == ["waits", "QueueFull"]


@pytest.mark.parametrize("how", ["evicted", "cancelled", "moved"])
def test_who_has_left_takes_no_room_in_memory_and_no_place_in_the_order(how: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        gate = gate_of(clock, size=9, concurrency=1, on_full="evict_lowest")
        await come(gate, clock, "inside")
        tasks = [await come(gate, clock, f"{number}", number % 2) for number in range(8)]
        for number in range(300):
            if how == "moved":
                gate.reprioritise("7", number % 3)
                continue
            low = await come(gate, clock, "low", 2)
            if how == "cancelled":
                low.cancel()
                await asyncio.wait([low])
                continue
            high = await come(gate, clock, "high", 0)
            await asyncio.sleep(0)
            assert states(low) == ["QueueFull"]
            high.cancel()
            await asyncio.wait([high])
        assert len(gate._heap) <= 65
        if how == "moved":
            gate.reprioritise("7", 1)
        order = []
        while gate.waiting:
            gate.release()
            await asyncio.sleep(0)
            order += [number for number, task in enumerate(tasks) if task.done() and number not in order]
        assert order == [0, 2, 4, 6, 1, 3, 5, 7]

    scenario()


@in_virtual_time
async def test_those_who_were_evicted_take_no_room_even_if_nobody_ever_leaves(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=1, concurrency=1, on_full="evict_lowest")
    await come(gate, clock, "inside")
    for _ in range(300):
        low, high = await come(gate, clock, "low", 2), await come(gate, clock, "high", 0)
        gate.release()
        await asyncio.sleep(0)
        assert states(low, high) == ["QueueFull", "inside"]
    assert len(gate._heap) <= 65


@in_virtual_time
async def test_when_most_have_left_the_others_keep_their_order(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    tiers = [(number * 7) % 3 for number in range(200)]
    tasks = [await come(gate, clock, f"{number}", tier) for number, tier in enumerate(tiers)]
    leaving = [number for number in range(200) if number % 5]
    for number in leaving:
        tasks[number].cancel()
    await asyncio.wait([tasks[number] for number in leaving])
    order: list[int] = []
    while gate.waiting:
        gate.release()
        await asyncio.sleep(0)
        order += [n for n, state in enumerate(states(*tasks)) if state == "inside" and n not in order]
    assert order == sorted(range(0, 200, 5), key=lambda number: (tiers[number], number))


@in_virtual_time
async def test_a_waiting_request_can_get_another_priority_and_keeps_its_age(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    one = await come(gate, clock, "one", 2)
    await asyncio.sleep(1.0)
    two, three = await come(gate, clock, "two", 1), await come(gate, clock, "three", 1)
    assert gate.reprioritise("one", 1)
    assert gate.reprioritise("three", 0)
    assert not gate.reprioritise("nobody", 0)
    order = []
    for _ in range(3):
        gate.release()
        await asyncio.sleep(0)
        order.append(states(one, two, three))
    assert order[0] == ["waits", "waits", "inside"]
    assert order[1] == ["inside", "waits", "inside"]
    assert not gate.reprioritise("one", 0)


@in_virtual_time
async def test_it_says_how_many_would_be_served_before_a_newcomer(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1, ageing_s=5.0)
    for name, tier in (("inside", 1), ("low", 2), ("normal", 1), ("high", 0)):
        await come(gate, clock, name, tier)
    left = await come(gate, clock, "left")
    left.cancel()
    await asyncio.wait([left])
    gate.reprioritise("low", 0)
    gate.reprioritise("low", 2)
    assert [gate.ahead_of(tier) for tier in (0, 1, 2)] == [1, 2, 3]
    await asyncio.sleep(5.0)
    assert [gate.ahead_of(tier) for tier in (0, 1, 2)] == [2, 3, 3]


@in_virtual_time
async def test_to_and_fro_a_request_is_served_once(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    one, two = await come(gate, clock, "one"), await come(gate, clock, "two")
    for tier in (0, 1, 2, 0, 0, 2):
        gate.reprioritise("one", tier)
    gate.release()
    await asyncio.sleep(0)
    assert states(one, two) == ["waits", "inside"]
    gate.release()
    await asyncio.sleep(0)
    assert states(one, two) == ["inside", "inside"]
    gate.release()
    assert (gate.active, gate.waiting) == (0, 0)


@in_virtual_time
async def test_more_slots_let_the_waiting_in_and_fewer_throw_nobody_out(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    tasks = [await come(gate, clock, str(number)) for number in range(4)]
    gate.concurrency = 3
    await asyncio.sleep(0)
    assert states(*tasks) == ["inside", "inside", "inside", "waits"]
    assert gate.gauges()["queue_concurrency"] == gate.concurrency == 3
    gate.concurrency = 1
    assert gate.active == 3
    gate.release()
    gate.release()
    await asyncio.sleep(0)
    assert states(tasks[3]) == ["waits"]
    gate.release()
    await asyncio.sleep(0)
    assert states(tasks[3]) == ["inside"]
    assert gate.gauges()["queue_active"] == 1


@in_virtual_time
async def test_the_size_may_be_changed_at_any_time(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=0, concurrency=1, on_full="reject")
    await come(gate, clock, "inside")
    gate.size = 1
    one, two = await come(gate, clock, "one"), await come(gate, clock, "two")
    assert states(one, two) == ["waits", "QueueFull"]
    gate.on_full = "wait"
    assert states(await come(gate, clock, "three")) == ["waits"]


@in_virtual_time
async def test_whose_time_is_over_is_not_let_in_but_told(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    mine = context(clock)
    mine.deadline = 5.0
    late = asyncio.create_task(gate.acquire(mine, "late"))
    next_one = await come(gate, clock, "next")
    await asyncio.sleep(5.0)
    assert states(late) == ["waits"]
    gate.release()
    await asyncio.sleep(0)
    assert states(late, next_one) == ["DeadlineExceeded", "inside"]
    assert isinstance(late.exception(), DeadlineExceeded)
    assert mine.record.queued_s == pytest.approx(5.0)
    assert (gate.active, gate.waiting) == (1, 0)


@in_virtual_time
async def test_before_its_time_is_over_it_is_let_in(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    mine = context(clock)
    mine.deadline = 5.5
    waiter = asyncio.create_task(gate.acquire(mine, "in time"))
    await asyncio.sleep(5.0)
    gate.release()
    await asyncio.sleep(0)
    assert states(waiter) == ["inside"]


@in_virtual_time
async def test_evicted_in_the_instant_of_its_cancellation_it_holds_nothing(clock: VirtualClock) -> None:
    gate = gate_of(clock, size=1, concurrency=1, on_full="evict_lowest")
    await come(gate, clock, "inside")
    low = await come(gate, clock, "low", 2)
    high = asyncio.create_task(gate.acquire(context(clock, 0), "high"))
    await asyncio.sleep(0)
    low.cancel()
    await asyncio.wait([low])
    assert (gate.active, gate.waiting) == (1, 1)
    gate.release()
    await high
    gate.release()
    assert (gate.active, gate.waiting) == (0, 0)


@in_virtual_time
async def test_a_slot_freed_while_the_only_waiter_is_leaving_goes_to_the_next_newcomer(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    await come(gate, clock, "inside")
    waiter = await come(gate, clock, "waiter")
    newcomer = asyncio.create_task(gate.acquire(context(clock), "newcomer"))
    waiter.cancel()
    gate.release()
    await asyncio.sleep(1.0)
    assert states(waiter, newcomer) == ["cancelled", "inside"]
    assert (gate.active, gate.waiting) == (1, 0)


@in_virtual_time
async def test_a_retry_keeps_the_place_of_its_first_try_also_when_that_did_not_wait(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom", retry_after_s=2.0), 10.0, 1.0)
    stage = chain([retry, queue], branch(clock, policy(concurrency=1)), executor)
    tasks = []
    for name in ("first", "second", "third"):
        tasks.append(asyncio.create_task(stage(request(name), context(clock))))
        await asyncio.sleep(0.5)
    await asyncio.wait(tasks)
    assert executor.order == ["first", "second", "first", "third"]


@in_virtual_time
async def test_what_it_waited_over_all_its_tries_is_in_the_record(clock: VirtualClock) -> None:
    gate = gate_of(clock, concurrency=1)
    mine = context(clock)
    for seconds in (2.0, 3.0):
        await come(gate, clock, "inside")
        waiter = asyncio.create_task(gate.acquire(mine, "mine"))
        await asyncio.sleep(seconds)
        gate.release()
        await waiter
        gate.release()
    assert mine.record.queued_s == pytest.approx(5.0)


@in_virtual_time
async def test_a_failed_call_gives_its_slot_back(clock: VirtualClock) -> None:
    made = branch(clock, policy(concurrency=1))
    with pytest.raises(ServerFailed):
        await chain([queue], made, Scripted(ServerFailed("boom")))(request(), context(clock))
    assert made.resources.items("queue")[("queue", "t")].active == 0


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    layer = queue.layer(branch(clock, policy(size=5, concurrency=2)))
    assert layer is not None
    assert layer.settings == "size=5 concurrency=2 on_full=wait"
    assert queue.layer(branch(clock, policy(enabled=False))) is None


class AgainstANaiveQueue(RuleBasedStateMachine):
    """The gate against a list that is searched from scratch, one step at a time; and bursts within one instant."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.names = count()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.contexts: dict[str, Context] = {}
        self.waiting: list[str] = []
        self.inside: set[str] = set()
        self.left: set[str] = set()
        self.ended: dict[str, str] = {}

    @initialize(
        on_full=st.sampled_from(["wait", "reject", "evict_lowest"]), size=st.integers(0, 3), slots=st.integers(1, 3)
    )
    def begin(self, on_full: str, size: int, slots: int) -> None:
        self.gate = PriorityGate(
            QueueSpec(size=size, concurrency=slots, on_full=on_full, ageing_s=5.0),  # type: ignore[arg-type]
            self.clock,
        )

    # -- what may happen ---------------------------------------------------------------------------------------

    @rule(tier=st.integers(0, 2), lifetime=st.sampled_from([None, 4.0]))
    def arrive(self, tier: int, lifetime: float | None) -> None:
        name = self._arrive(tier, lifetime)
        gate = self.gate
        if len(self.inside) < gate.concurrency and not self.waiting:
            self.inside.add(name)
        elif len(self.waiting) >= gate.size and gate.on_full != "wait":
            last = max(self.waiting, key=self._place, default=name)
            if gate.on_full == "reject" or last == name or self._place(last)[0] <= self._place(name)[0]:
                self.ended[name] = "QueueFull"
            else:
                self.waiting.remove(last)
                self.ended[last] = "QueueFull"
                self.waiting.append(name)
        else:
            self.waiting.append(name)
        self._settle()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.inside:
            self._release(data.draw(st.sampled_from(sorted(self.inside))))
            self._serve()
            self._settle()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            name = data.draw(st.sampled_from(sorted(self.waiting)))
            self.tasks[name].cancel()
            self.waiting.remove(name)
            self.ended[name] = "cancelled"
            self._settle()

    @rule(data=st.data(), tier=st.integers(0, 2))
    def reprioritise(self, data: st.DataObject, tier: int) -> None:
        if self.tasks:
            name = data.draw(st.sampled_from(sorted(self.tasks)))
            assert self.gate.reprioritise(name, tier) == (name in self.waiting)
            self._settle()

    @rule(slots=st.integers(1, 3))
    def change_slots(self, slots: int) -> None:
        self.gate.concurrency = slots
        self._serve()
        self._settle()

    @rule(size=st.integers(0, 3))
    def change_size(self, size: int) -> None:
        self.gate.size = size

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(data=st.data())
    def burst(self, data: st.DataObject) -> None:
        """Newcomers, cancellations and releases before anybody has woken up; only what must always hold is checked."""
        self._arrive(data.draw(st.integers(0, 2)), None)
        for _ in range(data.draw(st.integers(1, 3))):
            if self.waiting and data.draw(st.booleans()):
                self.tasks[self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))].cancel()
            elif self.inside:
                self._release(min(self.inside))
        self.loop.run_until_complete(asyncio.sleep(0.01))
        found = {name: states(task)[0] for name, task in self.tasks.items() if name not in self.left}
        self.inside = {name for name, state in found.items() if state == "inside"}
        self.waiting = [name for name, state in found.items() if state == "waits"]
        self.ended = {name: state for name, state in found.items() if state not in ("inside", "waits")}

    # -- the model ---------------------------------------------------------------------------------------------

    def _arrive(self, tier: int, lifetime: float | None) -> str:
        name = f"{next(self.names):04}"
        mine = self.contexts[name] = context(self.clock, tier)
        mine.deadline = None if lifetime is None else self.clock.monotonic() + lifetime
        self.tasks[name] = self.loop.create_task(self.gate.acquire(mine, name))
        return name

    def _release(self, name: str) -> None:
        self.inside.remove(name)
        self.left.add(name)
        self.gate.release()

    def _place(self, name: str) -> tuple[float, str]:
        mine = self.contexts[name]
        return mine.submitted_at + mine.tier * 5.0, name

    def _serve(self) -> None:
        while self.waiting and len(self.inside) < self.gate.concurrency:
            name = min(self.waiting, key=self._place)
            self.waiting.remove(name)
            deadline = self.contexts[name].deadline
            if deadline is not None and self.clock.monotonic() >= deadline:
                self.ended[name] = "DeadlineExceeded"
            else:
                self.inside.add(name)

    def _settle(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        for name in self.waiting:
            assert states(self.tasks[name]) == ["waits"]
        for name in self.inside:
            assert states(self.tasks[name]) == ["inside"]
        for name, state in self.ended.items():
            assert states(self.tasks[name]) == [state]

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "gate"):
            assert (self.gate.active, self.gate.waiting) == (len(self.inside), len(self.waiting))
            assert not self.waiting or self.gate.active >= self.gate.concurrency

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()


AgainstANaiveQueue.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestAgainstANaiveQueue = pytest.mark.slow(AgainstANaiveQueue.TestCase)
