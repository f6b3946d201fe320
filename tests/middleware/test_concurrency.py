"""Adaptive concurrency: finds the provider's limit, stays below it, learns from what concerns it only."""

import asyncio

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Request
from engine.errors import InferenceError, Overloaded, ServerFailed, Throttled
from engine.middleware import concurrency, queue, retry, route
from engine.middleware.concurrency import AdaptiveLimit
from engine.request import Context, Result
from engine.virtual_time import VirtualClock, run
from schemas.policy import ConcurrencySpec, PolicySpec, QueueSpec, RetrySpec

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
    limit = AdaptiveLimit(ConcurrencySpec(initial=2, freeze_s=5.0), clock)
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
