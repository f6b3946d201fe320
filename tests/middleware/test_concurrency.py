"""Adaptive concurrency: finds the provider's limit, stays below it, learns from what concerns it only."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count, pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine import Request
from engine.core.errors import (
    Cancelled,
    CircuitOpen,
    ConnectFailed,
    InferenceError,
    InvalidRequest,
    Overloaded,
    ServerFailed,
    Throttled,
)
from engine.core.request import Context, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop, run
from engine.middleware import breaker, concurrency, queue, retry, route
from engine.middleware.breaker import State
from engine.middleware.concurrency import AdaptiveLimit, Permit
from engine.schemas.policy import BreakerSpec, ConcurrencySpec, PolicySpec, QueueSpec, RetrySpec
from engine.schemas.provider import LocalProviderSpec
from tests.middleware.chain import EXAMPLES, Scripted, branch, chain, context, in_virtual_time, request

SPEC = ConcurrencySpec(enabled=True, initial=4)


class Provider:
    """Takes `capacity` calls at once, each for a second; refuses any other at once."""

    keys: tuple[str, ...] = ()
    tasks = frozenset({"chat"})

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.active = self.answered = self.refused = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        if self.active >= self.capacity:
            self.refused += 1
            raise Throttled("too many", status=429)
        self.active += 1
        try:
            await asyncio.sleep(1.0)
        finally:
            self.active -= 1
        self.answered += 1
        return Result(request.id or "", {})


async def ask_for(limit: AdaptiveLimit, provider: Provider, seconds: float, clock: VirtualClock) -> None:
    """Calls below the limit, one after the other; a refused one is tried again."""
    while clock.monotonic() < seconds:
        permit = await limit.acquire()
        try:
            await provider(request(), context(clock))
        except Throttled as error:
            limit.release(permit, error)
        else:
            limit.release(permit, None)


@in_virtual_time
async def test_it_settles_near_what_the_provider_takes(clock: VirtualClock) -> None:
    provider = Provider(40)
    policy = PolicySpec(
        concurrency=SPEC,
        queue=QueueSpec(concurrency=500),
        retry=RetrySpec(max_retries=1000, initial_delay_s=0.5, max_delay_s=1.0),
    )
    stage = chain([retry, queue, route, concurrency], branch(clock, policy), provider)

    async def caller() -> None:
        while clock.monotonic() < 240:
            await stage(request(), context(clock))

    callers = [asyncio.create_task(caller()) for _ in range(200)]
    await asyncio.sleep(60)
    answered, refused = provider.answered, provider.refused
    await asyncio.gather(*callers)
    answered, refused = provider.answered - answered, provider.refused - refused
    assert answered / (40 * 180) >= 0.9
    assert refused / (answered + refused) <= 0.03


@in_virtual_time
async def test_it_starts_slowly_and_doubles_until_the_first_no(clock: VirtualClock) -> None:
    executor = Scripted(1.0)
    made = branch(clock, PolicySpec(concurrency=SPEC))
    stage = chain([concurrency], made, executor)
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(4 + 8 + 16)))
    assert clock.monotonic() == pytest.approx(3.0)
    assert executor.peak == 16


@in_virtual_time
async def test_a_burst_of_refusals_cuts_once(clock: VirtualClock) -> None:
    limit = AdaptiveLimit(ConcurrencySpec(initial=100), clock)
    permits = [await limit.acquire() for _ in range(100)]
    for permit in permits:
        limit.release(permit, Throttled("no"))
    assert limit.limit == pytest.approx(70.0)
    assert limit.in_flight == 0


@pytest.mark.parametrize(
    ("error", "after"), [(Throttled("no"), 7.0), (Overloaded("no"), 7.0), (ServerFailed("boom"), 10.0)]
)
def test_only_a_no_shrinks_it(error: InferenceError, after: float) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        limit = AdaptiveLimit(ConcurrencySpec(initial=10), clock)
        limit.release(await limit.acquire(), error)
        assert limit.limit == pytest.approx(after)

    scenario()


@in_virtual_time
async def test_it_does_not_grow_after_a_failure_nor_when_it_is_not_used(clock: VirtualClock) -> None:
    limit = AdaptiveLimit(ConcurrencySpec(initial=2, freeze_s=5.0, freeze_share=0.0), clock)
    limit.release(await limit.acquire(), ServerFailed("boom"))
    first, second = await limit.acquire(), await limit.acquire()
    limit.release(first, None)
    limit.release(second, None)
    assert limit.limit == 2.0
    await asyncio.sleep(6.0)
    limit.release(await limit.acquire(), None)  # one of two is half of it
    assert limit.limit == 2.0
    first, second = await limit.acquire(), await limit.acquire()
    limit.release(first, None)
    assert limit.limit == 3.0
    limit.release(second, None)


@in_virtual_time
async def test_a_stream_holds_its_permit_until_it_ends(clock: VirtualClock) -> None:
    made = branch(clock, PolicySpec(concurrency=SPEC))
    result = await chain([concurrency], made, Scripted(0.0))(request(), context(clock, stream=True))
    (limit,) = made.resources.items("concurrency").values()
    assert limit.in_flight == 1
    assert result.stream is not None
    await result.stream.aclose()
    assert limit.in_flight == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 3), st.sampled_from("okfnc")), max_size=30), st.integers(1, 6)
)
def test_permits_are_conserved_whatever_happens(jobs: list[tuple[float, float, str]], initial: int) -> None:
    """o and k answer, f fails, n is refused, c is cancelled; never more in flight than the limit ever was."""

    async def scenario(clock: VirtualClock) -> None:
        limit = AdaptiveLimit(ConcurrencySpec(initial=initial, maximum=8), clock)
        outcomes = {"f": ServerFailed("boom"), "n": Throttled("no")}

        async def job(start: float, hold: float, fate: str) -> None:
            await asyncio.sleep(start)
            try:
                async with asyncio.timeout(0.5 if fate == "c" else None):
                    permit = await limit.acquire()
            except TimeoutError:
                return
            assert limit.in_flight <= 8
            await asyncio.sleep(hold)
            limit.release(permit, outcomes.get(fate))

        await asyncio.gather(*(job(*spec) for spec in jobs))
        assert (limit.in_flight, limit.waiting) == (0, 0)
        assert 1 <= limit.limit <= 8

    run(scenario)


# -- how it grows and shrinks -----------------------------------------------------------------------------------------


def limit_of(clock: VirtualClock, **fields: Any) -> AdaptiveLimit:
    return AdaptiveLimit(ConcurrencySpec(**fields), clock)


async def fill(limit: AdaptiveLimit) -> list[Permit]:
    """Takes all that may be in flight."""
    return [await limit.acquire() for _ in range(round(limit.limit) - limit.in_flight)]


async def succeed(limit: AdaptiveLimit, seconds: float, clock: VirtualClock, step_s: float = 0.05) -> None:
    """A limit in full use whose calls all succeed, for so long."""
    until = clock.monotonic() + seconds
    permits = await fill(limit)
    while clock.monotonic() < until:
        await asyncio.sleep(step_s)
        for permit in permits:
            limit.release(permit, None)
        permits = await fill(limit)
    for permit in permits:
        limit.release(permit, None, ignored=True)


@in_virtual_time
async def test_it_begins_within_its_bounds(clock: VirtualClock) -> None:
    for initial, minimum, maximum, begin in ((8, 1, 100, 8), (8, 20, 100, 20), (8, 1, 5, 5)):
        limit = limit_of(clock, initial=initial, minimum=minimum, maximum=maximum)
        assert limit.gauges() == {
            "concurrency_limit": begin,
            "concurrency_in_flight": 0,
            "concurrency_waiting": 0,
            "concurrency_cuts": 0,
        }


@in_virtual_time
async def test_after_a_no_it_comes_back_along_the_curve_of_rfc_9438(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=100, maximum=1000, backoff=0.7)
    for _ in range(100):  # so many calls a second that their pace is not what holds them back
        for permit in await fill(limit):
            limit.release(permit, None, ignored=True)
        await asyncio.sleep(0.01)
    permits = await fill(limit)
    for permit in permits:
        limit.release(permit, Throttled("no"))
    assert limit.limit == pytest.approx(70.0)
    cut_at, back_s = clock.monotonic(), (100 * 0.3 / 0.4) ** (1 / 3)
    for share in (0.25, 0.5, 1.0, 1.5, 1.9):
        await succeed(limit, cut_at + share * back_s - clock.monotonic(), clock, step_s=0.02)
        curve = 0.4 * (clock.monotonic() - cut_at - back_s) ** 3 + 100
        assert limit.limit == pytest.approx(curve, rel=0.03)


@in_virtual_time
async def test_a_second_no_just_beyond_a_good_limit_takes_less(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=100, maximum=1000, backoff=0.64)
    (permit, *others) = await fill(limit)
    limit.release(permit, Throttled("no"))
    for other in others:
        limit.release(other, None, ignored=True)
    assert limit.limit == pytest.approx(64.0)
    again = await limit.acquire()
    limit.release(again, Throttled("no"))  # far below what was good: too many by far
    assert limit.limit == pytest.approx(64.0 * 0.64)
    await succeed(limit, 6.0, clock)
    good = limit.limit
    assert good > 64.0
    again = await limit.acquire()
    limit.release(again, Throttled("no"))
    assert limit.limit == pytest.approx(good * 0.64 ** (1 / 4))
    assert limit.gauges()["concurrency_cuts"] == 3


@in_virtual_time
async def test_a_no_on_the_way_back_is_just_too_many_only_near_its_end(clock: VirtualClock) -> None:
    for back_to, left in ((88.0, 0.64), (91.1, 0.64 ** (1 / 4))):  # 91 is where a quarter of the loss is missing
        limit = limit_of(clock, initial=100, maximum=1000, backoff=0.64)
        permits = await fill(limit)
        for permit in permits:
            limit.release(permit, Throttled("no"))
        while limit.limit < back_to:
            await succeed(limit, 0.1, clock, step_s=0.02)
        before = limit.limit
        assert before < back_to + 1.5
        limit.release(await limit.acquire(), Throttled("no"))
        assert limit.limit == pytest.approx(before * left)


@in_virtual_time
async def test_few_and_long_calls_are_not_spent_on_probes(clock: VirtualClock) -> None:
    provider = Provider(5)
    limit = limit_of(clock, initial=4, maximum=100)
    await asyncio.gather(*(ask_for(limit, provider, 1000.0, clock) for _ in range(20)))
    assert provider.refused / (provider.answered + provider.refused) < 0.03
    assert provider.answered > 0.9 * 5 * 1000


@pytest.mark.parametrize("share", [0.4, 0.8, 1.03, 1.2])
def test_where_calls_are_long_the_way_back_takes_fifty_of_them(share: float) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        limit = limit_of(clock, initial=10, maximum=1000)
        permits = await fill(limit)
        await asyncio.sleep(4.0)
        for permit in permits:
            limit.release(permit, None)  # a call takes 4 s
        peak, lost = limit.limit, 0.3 * limit.limit
        limit.release(await limit.acquire(), Throttled("no"))
        cut_at, back_s = clock.monotonic(), 50 * 4.0 / peak
        assert back_s > (lost / 0.4) ** (1 / 3)  # RFC 9438 would be back before
        await asyncio.sleep(share * back_s - 4.0)
        permit, *_ = await fill(limit)
        before = limit.limit
        await asyncio.sleep(permit.started + 4.0 - clock.monotonic())
        limit.release(permit, None)
        since = clock.monotonic() - cut_at - back_s
        curve = peak + (lost * (since / back_s) ** 3 if since < 0 else 0.4 * since**3)
        assert limit.limit == pytest.approx(before + (min(curve, 1.5 * before) - before) / before)

    scenario()


@in_virtual_time
async def test_the_first_call_after_a_no_need_not_wait(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=10)
    limit.release(await limit.acquire(), Throttled("no"))
    await asyncio.sleep(0.01)
    assert limit.try_acquire() is not None
    assert clock.monotonic() < 0.1


@in_virtual_time
async def test_it_stays_between_minimum_and_maximum(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=4, minimum=3, maximum=6)
    await succeed(limit, 5.0, clock)
    assert limit.limit == 6.0
    limit = limit_of(clock, initial=4, minimum=3, maximum=6)
    for _ in range(3):
        permits = await fill(limit)
        for permit in reversed(permits):
            limit.release(permit, Overloaded("no"))
        assert limit.limit == 3.0
    assert clock.monotonic() < 6.0


@pytest.mark.parametrize("error", [InvalidRequest("no"), CircuitOpen("no"), Cancelled("left")])
def test_what_says_nothing_about_how_many_are_too_many_changes_nothing(error: InferenceError) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        limit = limit_of(clock, initial=2, freeze_s=60.0, freeze_share=0.0)
        permits = await fill(limit)
        limit.release(permits[0], error)
        limit.release(permits[1], None, ignored=True)
        assert (limit.limit, limit.in_flight) == (2.0, 0)
        for permit in await fill(limit):
            limit.release(permit, None)
        assert limit.limit > 2.0  # and it was not frozen

    scenario()


@in_virtual_time
async def test_late_answers_from_before_a_no_neither_raise_nor_cut_it(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=10)
    permits = await fill(limit)
    limit.release(permits[0], Throttled("no"))
    for permit in permits[1:]:
        await asyncio.sleep(1.0)
        limit.release(permit, None if permit is not permits[5] else Throttled("no"))
    assert limit.limit == pytest.approx(7.0)


@in_virtual_time
async def test_a_freeze_ends_and_the_longest_one_counts(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=2, freeze_s=5.0, freeze_share=0.0)
    limit.release(await limit.acquire(), ConnectFailed("no"))
    await asyncio.sleep(3.0)
    limit.release(await limit.acquire(), ServerFailed("no"))
    await asyncio.sleep(4.9)
    for permit in await fill(limit):
        limit.release(permit, None)
    assert limit.limit == 2.0
    await asyncio.sleep(0.1)
    (first, second) = await fill(limit)
    limit.release(first, None)
    limit.release(second, None, ignored=True)
    assert limit.limit == 3.0


@in_virtual_time
async def test_it_grows_only_while_four_fifths_of_it_are_in_use(clock: VirtualClock) -> None:
    for busy, after in ((7, 10.0), (8, 11.0)):
        limit = limit_of(clock, initial=10)
        permits = [await limit.acquire() for _ in range(busy)]
        limit.release(permits[0], None)
        assert limit.limit == after


@in_virtual_time
async def test_restart_begins_slowly_and_lets_late_answers_change_nothing(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=4)
    await succeed(limit, 1.0, clock)
    assert limit.limit > 20
    late = await limit.acquire()
    limit.restart()
    assert limit.limit == 4.0
    limit.release(late, Throttled("no"))
    assert limit.limit == 4.0
    (permit, *others) = await fill(limit)
    limit.release(permit, Throttled("no"))
    for other in others:
        limit.release(other, None, ignored=True)
    assert limit.limit == pytest.approx(4.0 * 0.7)
    limit.restart()
    began = clock.monotonic()
    (first, *others) = await fill(limit)
    assert clock.monotonic() == began  # and without a pace
    limit.release(first, None)
    assert limit.limit == 5.0  # doubles from round to round again
    for other in others:
        limit.release(other, None)


@in_virtual_time
async def test_after_an_outage_the_concurrency_limit_starts_slowly_again(clock: VirtualClock) -> None:
    plan = PolicySpec(
        breaker=BreakerSpec(window=10, min_calls=4, open_s=10.0, probes=1),
        concurrency=ConcurrencySpec(enabled=True, initial=3),
    )
    made_branch = branch(clock, plan)
    executor = Scripted(*[0.0] * 40, ServerFailed("down"))
    stage = chain([concurrency, breaker], made_branch, executor)
    for _ in range(5):
        await asyncio.gather(*(stage(request(), context(clock)) for _ in range(8)))
    (limit,) = made_branch.resources.items("concurrency").values()
    (circuit,) = made_branch.resources.items("breaker").values()
    assert limit.limit > 3.0
    while circuit.state is State.CLOSED:
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    executor.steps.append(0.0)
    executor.calls = 100
    await asyncio.sleep(circuit.open_for_s)
    await stage(request(), context(clock))
    assert circuit.state is State.CLOSED
    assert limit.gauges()["concurrency_limit"] == 3


@in_virtual_time
async def test_however_long_it_was_idle_one_answer_makes_half_a_call_more_room_at_most(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=100)
    permits = await fill(limit)
    for permit in permits:
        limit.release(permit, Throttled("no"))
    await asyncio.sleep(1000.0)
    permits = await fill(limit)
    limit.release(permits[0], None)
    assert limit.limit == 70.5


@in_virtual_time
async def test_a_call_that_was_cancelled_teaches_nothing(clock: VirtualClock) -> None:
    made = branch(clock, PolicySpec(concurrency=ConcurrencySpec(enabled=True, initial=1)))
    task = asyncio.create_task(chain([concurrency], made, Scripted(100.0))(request(), context(clock)))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    (limit,) = made.resources.items("concurrency").values()
    assert (limit.limit, limit.in_flight) == (1.0, 0)


# -- latency ----------------------------------------------------------------------------------------------------------


class Engines:
    """A server of one's own: each call takes as long as there are calls."""

    def __init__(self, tokens: int | None = 10, stream_s: float = 0.0) -> None:
        self.tokens = tokens
        self.stream_s = stream_s
        self.active = 0
        self.seconds = 1.0

    async def __call__(self, request: Request, context: Context) -> Result:
        if context.stream:
            return Result("r", stream=ChunkStream(self._chunks()))
        await asyncio.sleep(self.seconds)
        return Result("r", {}, usage=Usage(1, self.tokens) if self.tokens is not None else None)

    async def _chunks(self) -> AsyncIterator[Chunk]:
        await asyncio.sleep(self.seconds)
        yield Chunk({})
        await asyncio.sleep(self.stream_s)
        yield Chunk({})


async def call(stage: Any, clock: VirtualClock, stream: bool = False) -> None:
    result = await stage(request(), context(clock, stream=stream))
    if result.stream is not None:
        async for _ in result.stream:
            pass


@pytest.mark.parametrize("stream", [False, True])
def test_a_latency_beyond_the_tolerance_eases_the_limit(stream: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        spec = ConcurrencySpec(enabled=True, initial=10, latency_tolerance=1.5)
        made = branch(clock, PolicySpec(concurrency=spec))
        executor = Engines(stream_s=100.0)
        stage = chain([route, concurrency], made, executor)
        (limit,) = made.resources.items("concurrency").values()
        await call(stage, clock, stream)
        assert limit.limit == 10.0
        executor.seconds = 2.0
        limits = []
        for _ in range(4):
            await call(stage, clock, stream)
            limits.append(limit.limit)
        assert limits == [10.0, 10.0, 10.0, pytest.approx(9.0)]  # on average 1.2, 1.36, 1.488, then 1.59 times the best

    scenario()


@in_virtual_time
async def test_the_moving_average_takes_a_fifth_of_each_latency_and_the_best_is_forgotten_slowly(
    clock: VirtualClock,
) -> None:
    limit = limit_of(clock, initial=10, latency_tolerance=1.5)

    async def answer(latency_s: float) -> float:
        limit.release(await limit.acquire(), None, latency_s=latency_s)
        return limit.limit

    assert await answer(1.0) == 10.0
    limits = [await answer(2.0) for _ in range(4)]
    assert limits == [10.0, 10.0, 10.0, pytest.approx(9.0)]  # 1.2, 1.36, 1.488, then 1.59 times the best
    limit = limit_of(clock, initial=10, latency_tolerance=1.5)
    await answer(1.0)
    for _ in range(3000):
        limit.release(await limit.acquire(), None, latency_s=1.4)
    assert limit.epoch == 0
    assert await answer(3.0) == 10.0  # 1.4 is the best by now, as the first one is forgotten


@in_virtual_time
async def test_a_long_answer_is_not_a_slow_one(clock: VirtualClock) -> None:
    spec = ConcurrencySpec(enabled=True, initial=10, latency_tolerance=1.5)
    made = branch(clock, PolicySpec(concurrency=spec))
    (limit,) = [concurrency.layer(made).arguments["limit"]]  # type: ignore[union-attr]
    executor = Engines(tokens=10)
    stage = chain([route, concurrency], made, executor)
    for tokens in (10, 100, 1000):
        executor.tokens, executor.seconds = tokens, tokens / 10
        for _ in range(10):
            await call(stage, clock)
    assert limit.epoch == 0
    executor.seconds = 1000.0
    for _ in range(10):
        await call(stage, clock)
    assert limit.epoch > 0


@in_virtual_time
async def test_without_a_tolerance_or_a_count_latency_says_nothing(clock: VirtualClock) -> None:
    for tolerance, tokens in ((None, 10), (1.5, None)):
        spec = ConcurrencySpec(enabled=True, initial=10, latency_tolerance=tolerance)
        made = branch(clock, PolicySpec(concurrency=spec))
        executor = Engines(tokens=tokens)
        stage = chain([route, concurrency], made, executor)
        for _ in range(20):
            executor.seconds *= 1.5
            await call(stage, clock)
        (limit,) = made.resources.items("concurrency").values()
        assert limit.epoch == 0


@in_virtual_time
async def test_an_answer_without_tokens_counts_as_one(clock: VirtualClock) -> None:
    spec = ConcurrencySpec(enabled=True, initial=10, latency_tolerance=1.5)
    made = branch(clock, PolicySpec(concurrency=spec))
    executor = Engines(tokens=0)
    stage = chain([route, concurrency], made, executor)
    for seconds in (1.0, *[2.0] * 5):
        executor.seconds = seconds
        await call(stage, clock)
    (limit,) = made.resources.items("concurrency").values()
    assert limit.epoch > 0


@in_virtual_time
async def test_the_time_for_each_token_is_that_of_the_whole_call(clock: VirtualClock) -> None:
    for answers in ([(0, 1.0), *[(1, 1.0)] * 10], [(1, 1.0), *[(2, 2.0)] * 10]):
        made = branch(clock, PolicySpec(concurrency=ConcurrencySpec(enabled=True, initial=10, latency_tolerance=1.5)))
        executor = Engines()
        stage = chain([route, concurrency], made, executor)
        for executor.tokens, executor.seconds in answers:
            await call(stage, clock)
        (limit,) = made.resources.items("concurrency").values()
        assert limit.epoch == 0


@in_virtual_time
async def test_after_a_restart_the_best_latency_is_found_anew(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=10, latency_tolerance=1.5)
    limit.release(await limit.acquire(), None, latency_s=1.0)
    limit.restart()
    for _ in range(20):
        limit.release(await limit.acquire(), None, latency_s=5.0)
    assert limit.epoch == 1


@in_virtual_time
async def test_a_stream_that_was_left_teaches_nothing_and_one_that_broke_freezes(clock: VirtualClock) -> None:
    made = branch(clock, PolicySpec(concurrency=ConcurrencySpec(enabled=True, initial=1)))
    stage = chain([route, concurrency], made, Engines())
    (limit,) = made.resources.items("concurrency").values()
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    await result.stream.aclose()
    assert (limit.limit, limit.in_flight) == (1.0, 0)
    await call(stage, clock, stream=True)
    assert limit.limit == 2.0


# -- the line ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_waiting_are_served_in_the_order_of_arrival_and_nobody_slips_past(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=1, maximum=1)
    held = await limit.acquire()
    assert limit.try_acquire() is None
    order: list[int] = []

    async def wait(number: int) -> None:
        permit = await limit.acquire()
        order.append(number)
        await asyncio.sleep(1.0)
        limit.release(permit, None)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert limit.gauges()["concurrency_waiting"] == 3
    tasks[1].cancel()
    limit.release(held, None)
    assert limit.try_acquire() is None
    await asyncio.wait(tasks)
    assert order == [0, 2]
    assert limit.try_acquire() is not None


@in_virtual_time
async def test_a_permit_given_in_the_instant_of_a_cancellation_goes_to_the_next(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=1, maximum=1)
    held = await limit.acquire()
    waiters = [asyncio.create_task(limit.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    limit.release(held, None)
    waiters[0].cancel()
    await asyncio.wait(waiters)
    assert waiters[0].cancelled()
    assert limit.in_flight == 1


@in_virtual_time
async def test_a_permit_is_of_the_time_when_it_is_given(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=2)
    first, second = await fill(limit)
    waiter = asyncio.create_task(limit.acquire())
    await asyncio.sleep(3.0)
    limit.release(first, Throttled("no"))
    limit.release(second, None)
    permit = await waiter
    assert permit.epoch == 1
    assert permit.started >= 3.0


@in_virtual_time
async def test_after_a_no_calls_go_out_at_a_pace(clock: VirtualClock) -> None:
    limit = limit_of(clock, initial=100, maximum=100)
    permits = await fill(limit)
    await asyncio.sleep(10.0)
    for permit in permits:
        limit.release(permit, None)  # calls take 10 s
    limit.release(await limit.acquire(), Throttled("no"))
    assert limit.limit == 70.0
    await asyncio.sleep(20.0)
    began, times = clock.monotonic(), []
    for _ in range(40):
        limit.release(await limit.acquire(), None, ignored=True)
        times.append(clock.monotonic() - began)
    steps = [round(after - before, 6) for before, after in pairwise(times)]
    even = 10.0 / (70 * 1.25)
    assert steps[-1] == pytest.approx(even, rel=0.01)
    assert sum(step == 0.0 for step in steps) == int(0.2 * 10.0 / even)  # what was missed is made up for


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off_or_at_home(clock: VirtualClock) -> None:
    layer = concurrency.layer(branch(clock, PolicySpec(concurrency=ConcurrencySpec(enabled=True, minimum=2))))
    assert layer is not None
    assert layer.settings == "from 8, 2–1000, ×0.7 on a no"
    assert concurrency.layer(branch(clock, PolicySpec())) is None
    local = branch(clock, PolicySpec(concurrency=SPEC), provider=LocalProviderSpec(kind="local", default_model="m"))
    assert concurrency.layer(local) is None


# -- against a naive model --------------------------------------------------------------------------------------------


class AgainstANaiveLimit(RuleBasedStateMachine):
    """The limit against plain lists of who has a permit and who waits; what a no, a success and a failure may do."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.names = count()
        self.tasks: dict[int, asyncio.Task[Permit]] = {}
        self.line: list[int] = []
        self.held: dict[int, tuple[Permit, int]] = {}
        self.cuts = 0

    @initialize(initial=st.integers(1, 4), minimum=st.integers(1, 2), maximum=st.integers(4, 8))
    def begin(self, initial: int, minimum: int, maximum: int) -> None:
        spec = ConcurrencySpec(initial=initial, minimum=minimum, maximum=maximum, freeze_s=2.0, freeze_share=0.0)
        self.limit = AdaptiveLimit(spec, self.clock)
        self.frozen_until = 0.0

    @rule()
    def come(self) -> None:
        name = next(self.names)
        self.tasks[name] = self.loop.create_task(self.limit.acquire())
        self.line.append(name)
        self._settle()

    @rule(data=st.data(), fate=st.sampled_from(["ok", "ok", "ok", "no", "failed", "left", "invalid"]))
    def end(self, data: st.DataObject, fate: str) -> None:
        if not self.held:
            return
        permit, cuts = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        error = {"no": Throttled("no"), "failed": ServerFailed("boom"), "invalid": InvalidRequest("no")}.get(fate)
        before, flying = self.limit.limit, len(self.held) + 1
        self._release(permit, error, fate == "left")
        after = self.limit.limit
        spec, now = self.limit.spec, self.clock.monotonic()
        cut, self.cuts = self.limit.epoch - self.cuts, self.limit.epoch
        if cut:
            assert (fate, cuts, cut) == ("no", self.cuts - 1, 1)
            assert max(spec.minimum, before * spec.backoff) - 1e-9 <= after <= max(spec.minimum, before * 0.9)
        elif fate == "ok" and cuts == self.cuts and flying >= 0.8 * round(before) and now >= self.frozen_until:
            assert before <= after <= min(spec.maximum, before + 1.0)
        else:
            assert after == before
        if fate == "failed":
            self.frozen_until = now + spec.freeze_s
        self._settle()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.line:
            self.tasks[data.draw(st.sampled_from(self.line))].cancel()
            self._settle()

    @rule(data=st.data())
    def end_as_one_gives_up(self, data: st.DataObject) -> None:
        """In one instant: what is given to who is leaving goes to the next."""
        if not self.held or not self.line:
            return
        permit, _ = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        leaving = self.tasks[data.draw(st.sampled_from(self.line))]

        async def act() -> None:
            self.limit.release(permit, None, ignored=True)
            leaving.cancel()

        self.loop.run_until_complete(act())
        self._settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self._settle()

    def _release(self, permit: Permit, error: InferenceError | None, ignored: bool) -> None:
        async def act() -> None:
            self.limit.release(permit, error, ignored=ignored)

        self.loop.run_until_complete(act())

    def _settle(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))
        served = [name for name in self.line if self.tasks[name].done() and not self.tasks[name].cancelled()]
        waiting = [name for name in self.line if not self.tasks[name].done()]
        assert not served or not waiting or max(served) < min(waiting)
        for name in served:
            permit = self.tasks[name].result()
            assert permit.epoch == self.cuts
            self.held[name] = permit, self.cuts
        self.line = waiting

    @invariant()
    def permits_are_conserved_and_nobody_waits_idly(self) -> None:
        if not hasattr(self, "limit"):
            return
        gauges = self.limit.gauges()
        assert gauges["concurrency_in_flight"] == len(self.held)
        assert gauges["concurrency_waiting"] == len(self.line)
        assert gauges["concurrency_cuts"] == self.cuts
        if not self.cuts:  # else they may wait for the pace
            assert not self.line or len(self.held) >= round(self.limit.limit)

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()


AgainstANaiveLimit.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestAgainstANaiveLimit = pytest.mark.slow(AgainstANaiveLimit.TestCase)


@pytest.mark.parametrize(("share", "places"), [(0.03, 8), (0.1, 8), (0.03, 60), (0.1, 60), (0.06, 200), (0.1, 400)])
def test_plain_failures_do_not_hold_a_healthy_provider_back(share: float, places: int) -> None:
    """A limit that grows among failures that are no refusals reaches nearly all the places within 60 s."""

    async def used(clock: VirtualClock) -> float:
        rng = Random(7)
        limit = AdaptiveLimit(ConcurrencySpec(maximum=places), clock)
        done = 0

        async def worker() -> None:
            nonlocal done
            while clock.monotonic() < 60.0:
                permit = limit.try_acquire() or await limit.acquire()
                await asyncio.sleep(0.5 * rng.uniform(0.8, 1.2))
                failed = rng.random() < share
                limit.release(permit, ServerFailed("500") if failed else None)
                done += not failed

        await asyncio.gather(*(worker() for _ in range(places)))
        return done / (places * 60.0 / 0.5 * (1.0 - share))

    assert run(used) >= 0.93
