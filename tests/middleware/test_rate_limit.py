"""The rate limit: never more than allowed, all or nothing, in the order of arrival, nothing lost."""

import asyncio

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CircuitOpen, ServerFailed, TooLong
from engine.middleware import rate_limit, route
from engine.middleware.rate_limit import VectorBucket
from engine.request import Context, RateHints, Request, Result
from engine.virtual_time import VirtualClock, run
from schemas.policy import PolicySpec, RateLimitSpec


def policy(**fields: object) -> PolicySpec:
    return PolicySpec(rate_limit=RateLimitSpec(enabled=True, **fields))  # type: ignore[arg-type]


@in_virtual_time
async def test_calls_beyond_the_burst_come_at_the_rate(clock: VirtualClock) -> None:
    executor = Scripted(0.0)
    stage = chain([route, rate_limit], branch(clock, policy(requests_per_min=60, burst_s=5)), executor)
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(15)))
    assert clock.monotonic() == pytest.approx(10.0)
    assert executor.order == [str(n) for n in range(15)]


@in_virtual_time
async def test_a_large_request_is_not_overtaken_by_small_ones(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, 1.0, None), 10.0, clock)
    order: list[str] = []

    async def take(name: str, amount: float) -> None:
        await bucket.acquire((1, 0, amount, 0))
        order.append(name)

    await bucket.acquire((1, 0, 10, 0))
    await asyncio.gather(take("large", 8), take("small", 1), take("small too", 1))
    assert order == ["large", "small", "small too"]
    assert clock.monotonic() == pytest.approx(10.0)


@in_virtual_time
async def test_all_dimensions_are_taken_together_or_none(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, 1.0, None), 4.0, clock)
    await bucket.acquire((1, 0, 4, 0))
    waiting = asyncio.create_task(bucket.acquire((1, 0, 2, 0)))
    await asyncio.sleep(0)
    assert bucket.levels[0] == pytest.approx(3.0)
    await waiting
    assert clock.monotonic() == pytest.approx(2.0)


@in_virtual_time
async def test_what_can_never_pass_is_refused_at_once_with_the_knob(clock: VirtualClock) -> None:
    stage = chain([route, rate_limit], branch(clock, policy(output_tokens_per_min=100)), Scripted(0.0))
    with pytest.raises(TooLong, match="output_tokens_per_min"):
        await stage(request(), context(clock))


@in_virtual_time
async def test_each_key_has_limits_of_its_own(clock: VirtualClock) -> None:
    executor = Scripted(0.0)
    stage = chain([route, rate_limit], branch(clock, policy(requests_per_min=60, burst_s=1), keys=("A", "B")), executor)
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(6)))
    assert clock.monotonic() == pytest.approx(2.0)
    shared = chain(
        [route, rate_limit],
        branch(clock, policy(requests_per_min=60, burst_s=1, per="target"), keys=("A", "B")),
        Scripted(0.0),
    )
    started = clock.monotonic()
    await asyncio.gather(*(shared(request(str(n)), context(clock)) for n in range(6)))
    assert clock.monotonic() - started == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (CircuitOpen("open"), (60.0, 600.0)),
        (ServerFailed("no connection"), (59.0, 599.0)),
        (ServerFailed("boom", status=500), (59.0, 600.0)),
    ],
)
def test_a_failed_call_gives_back_what_the_provider_did_not_count(error: Exception, left: tuple[float, float]) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        made = branch(clock, policy(requests_per_min=60, input_tokens_per_min=600, output_tokens_per_min=6000))
        stage = chain([route, rate_limit], made, Scripted(error))  # type: ignore[arg-type]
        with pytest.raises(type(error)):
            await stage(request(), context(clock))
        (bucket,) = made.resources.items("rate_limit").values()
        assert (bucket.levels[0], bucket.levels[2]) == pytest.approx(left)
        assert bucket.levels[3] == pytest.approx(6000)

    scenario()


@in_virtual_time
async def test_a_cancelled_waiter_frees_the_line(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, None, None), 2.0, clock)
    await bucket.acquire((2, 0, 0, 0))
    large = asyncio.create_task(bucket.acquire((2, 0, 0, 0)))
    small = asyncio.create_task(bucket.acquire((1, 0, 0, 0)))
    await asyncio.sleep(0.5)
    large.cancel()
    await small
    assert clock.monotonic() == pytest.approx(1.0)
    assert bucket.waiting == 0


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4), st.booleans(), st.floats(0.1, 3)), min_size=1, max_size=20),
    st.floats(0.5, 3),
)
def test_no_stretch_of_time_sees_more_than_the_burst_and_the_rate(
    jobs: list[tuple[float, int, bool, float]], rate: float
) -> None:
    """Against adding up what was taken: from any grant to any later one, at most capacity + rate × time between."""

    async def scenario(clock: VirtualClock) -> None:
        bucket = VectorBucket((rate, None, None, None), 4.0 / rate, clock)
        taken: list[tuple[float, int]] = []

        async def job(start: float, amount: int, cancel: bool, patience: float) -> None:
            await asyncio.sleep(start)
            try:
                async with asyncio.timeout(patience if cancel else None):
                    await bucket.acquire((amount, 0, 0, 0))
            except TimeoutError:
                return
            taken.append((clock.monotonic(), amount))

        await asyncio.gather(*(job(*spec) for spec in jobs))
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                amount = sum(cost for _, cost in taken[first : last + 1])
                assert amount <= 4.0 + rate * (taken[last][0] - taken[first][0]) + 1e-6
        assert bucket.waiting == 0

    run(scenario)


@in_virtual_time
async def test_prompt_and_answer_together_have_a_limit_too(clock: VirtualClock) -> None:
    executor = Scripted(0.0)
    made = branch(clock, policy(tokens_per_min=600, output_tokens_default=99, burst_s=10))
    stage = chain([route, rate_limit], made, executor)
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(3)))
    assert clock.monotonic() == pytest.approx(20.0)


@in_virtual_time
async def test_headers_lower_a_limit_and_never_raise_it(clock: VirtualClock) -> None:
    bucket = VectorBucket((10.0, None, None, None), 60.0, clock)
    bucket.learn(RateHints(requests=(100.0, 4.0, 96.0)))
    assert bucket.levels[0] == 4.0
    for _ in range(6):
        await bucket.acquire((1, 0, 0, 0))
    assert clock.monotonic() == pytest.approx(2.0)
    bucket.learn(RateHints(requests=(10_000.0, 0.0, 1.0)))
    for _ in range(10):
        await bucket.acquire((1, 0, 0, 0))
    assert clock.monotonic() == pytest.approx(3.0)


@in_virtual_time
async def test_a_limit_that_nobody_configured_is_learned_from_the_replies(clock: VirtualClock) -> None:
    class Hinting(Scripted):
        async def __call__(self, request: Request, context: Context) -> Result:
            assert context.attempt is not None
            left = max(0.0, 3.0 - self.calls - 1 + clock.monotonic())
            context.attempt.hints = RateHints(requests=(60.0, left, 60.0 - left))
            return await super().__call__(request, context)

    executor = Hinting(0.0)
    stage = chain([route, rate_limit], branch(clock, policy()), executor)
    for number in range(6):
        await stage(request(str(number)), context(clock))
    assert clock.monotonic() == pytest.approx(3.0, abs=0.1)
