"""The rate limit: never more than allowed, all or nothing, in the order of arrival, nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.errors import CircuitOpen, InferenceError, ServerFailed, Throttled, TooLong
from engine.core.request import Context, RateHints, Request, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop, run
from engine.middleware import concurrency, rate_limit, route
from engine.middleware.layer_context import LayerContext
from engine.middleware.rate_limit import Cost, VectorBucket, cost_of
from engine.schemas.policy import ConcurrencySpec, PolicySpec, RateLimitSpec
from engine.schemas.provider import LocalProviderSpec
from tests.middleware.chain import EXAMPLES, Scripted, branch, chain, context, in_virtual_time, request


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
            context.attempt.hints = lambda: RateHints(requests=(60.0, left, 60.0 - left))
            return await super().__call__(request, context)

    executor = Hinting(0.0)
    stage = chain([route, rate_limit], branch(clock, policy()), executor)
    for number in range(6):
        await stage(request(str(number)), context(clock))
    assert clock.monotonic() == pytest.approx(3.0, abs=0.1)


def bucket_in(made: LayerContext, key: str | None = None) -> VectorBucket:
    bucket = made.resources.items("rate_limit")[("rate_limit", "t", key)]
    assert isinstance(bucket, VectorBucket)
    return bucket


class Answers:
    """Says its usage, after it has noted what it was told to."""

    def __init__(self, usage: Usage | None = None, error: InferenceError | None = None, **noted: Any) -> None:
        self.usage = usage
        self.error = error
        self.noted = noted
        self.seconds = 0.0

    async def __call__(self, request: Request, context: Context) -> Result:
        assert context.attempt is not None
        for name, value in self.noted.items():
            setattr(context.attempt, name, value)
        if context.stream:
            return Result("r", stream=ChunkStream(self._chunks()))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Result("r", {}, usage=self.usage)

    async def _chunks(self) -> AsyncIterator[Chunk]:
        yield Chunk({})
        yield Chunk({}, self.usage)


LIMITS = {"requests_per_min": 60, "tokens_per_min": 6000, "input_tokens_per_min": 600, "output_tokens_per_min": 6000}
ASKED = Request("chat", {"messages": [{"role": "user", "content": "x" * 39}], "max_tokens": 100})


# -- what a call costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "body", "cost"),
    [
        ("chat", ASKED.body, (1.0, 110.0, 10.0, 100.0)),
        ("chat", {"messages": [], "max_completion_tokens": 7}, (1.0, 8.0, 1.0, 7.0)),
        ("chat", {"messages": []}, (1.0, 51.0, 1.0, 50.0)),
        ("embedding", {"input": ["x" * 4, "y" * 4]}, (1.0, 3.0, 3.0, 0.0)),
    ],
)
def test_a_call_costs_its_prompt_and_the_longest_answer_it_allows(task: str, body: dict[str, Any], cost: Cost) -> None:
    assert cost_of(Request(task, body), RateLimitSpec(output_tokens_default=50)) == cost


@in_virtual_time
async def test_the_reservation_is_put_right_by_the_true_usage(clock: VirtualClock) -> None:
    made = branch(clock, policy(**LIMITS))
    await chain([route, rate_limit], made, Answers(Usage(25, 3)))(ASKED, context(clock))
    assert bucket_in(made).levels == [59.0, 6000.0 - 28, 600.0 - 25, 6000.0 - 3]


@in_virtual_time
async def test_a_stream_is_put_right_at_its_end(clock: VirtualClock) -> None:
    made = branch(clock, policy(**LIMITS))
    result = await chain([route, rate_limit], made, Answers(Usage(25, 3)))(ASKED, context(clock, stream=True))
    assert bucket_in(made).levels == [59.0, 6000.0 - 110, 600.0 - 10, 6000.0 - 100]
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 2
    assert bucket_in(made).levels == [59.0, 6000.0 - 28, 600.0 - 25, 6000.0 - 3]


@in_virtual_time
async def test_what_nobody_counted_stays_as_it_was_reserved(clock: VirtualClock) -> None:
    made = branch(clock, policy(**LIMITS))
    await chain([route, rate_limit], made, Answers())(ASKED, context(clock))
    assert bucket_in(made).levels == [59.0, 6000.0 - 110, 600.0 - 10, 6000.0 - 100]


@in_virtual_time
async def test_a_call_dearer_than_its_reservation_makes_the_next_ones_wait(clock: VirtualClock) -> None:
    made = branch(clock, policy(output_tokens_per_min=6000))
    stage = chain([route, rate_limit], made, Answers(Usage(1, 7000)))
    await stage(ASKED, context(clock))
    assert bucket_in(made).levels[3] == -1000.0
    await stage(ASKED, context(clock))
    assert clock.monotonic() == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("sent", "left"), [(False, [60.0, 6000.0, 600.0, 6000.0]), (True, [59.0, 6000.0 - 110, 590.0, 6000.0])]
)
def test_a_cancelled_call_gives_back_what_the_provider_can_not_have_counted(sent: bool, left: list[float]) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        made = branch(clock, policy(**LIMITS))
        executor = Answers(sent=sent)
        executor.seconds = 100.0
        task = asyncio.create_task(chain([route, rate_limit], made, executor)(ASKED, context(clock)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert bucket_in(made).levels == pytest.approx(left)

    scenario()


@in_virtual_time
async def test_who_leaves_while_waiting_for_a_permit_has_used_no_tokens(clock: VirtualClock) -> None:
    spec = policy(**LIMITS).model_copy(update={"concurrency": ConcurrencySpec(enabled=True, initial=1)})
    made = branch(clock, spec)
    stage = chain([route, rate_limit, concurrency], made, Scripted(100.0))
    tasks = [asyncio.create_task(stage(ASKED, context(clock))) for _ in range(2)]
    await asyncio.sleep(0)
    assert bucket_in(made).levels[0] == 58.0
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert bucket_in(made).levels == [59.0, 6000.0 - 110, 590.0, 5900.0]


@in_virtual_time
async def test_a_limit_smaller_than_one_call_still_lets_one_pass(clock: VirtualClock) -> None:
    made = branch(clock, policy(requests_per_min=1, burst_s=6))
    stage = chain([route, rate_limit], made, Scripted(0.0))
    for _ in range(2):
        await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(60.0)


@in_virtual_time
async def test_without_an_attempt_the_limit_is_the_targets(clock: VirtualClock) -> None:
    made = branch(clock, policy(requests_per_min=60))
    await chain([rate_limit], made, Scripted(0.0))(request(), context(clock))
    assert bucket_in(made).levels[0] == 59.0


@in_virtual_time
async def test_a_bucket_says_how_long_a_call_would_wait(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, 2.0, None), 10.0, clock)
    assert bucket.wait_s((1, 0, 20, 0)) == 0.0
    await bucket.acquire((10, 0, 20, 0))
    assert bucket.wait_s((1, 0, 8, 0)) == pytest.approx(4.0)
    waiting = [asyncio.create_task(bucket.acquire((amount, 0, 2, 0))) for amount in (5, 2)]
    gone = asyncio.create_task(bucket.acquire((9, 0, 2, 0)))
    await asyncio.sleep(0)
    gone.cancel()
    assert bucket.wait_s((1, 0, 2, 0)) == pytest.approx(8.0)
    assert bucket.gauges() == {
        "rate_limit_waiting": 2,
        "rate_limit_requests_left": 0,
        "rate_limit_input_tokens_left": 0,
    }
    await asyncio.sleep(2.0)
    assert bucket.gauges()["rate_limit_input_tokens_left"] == pytest.approx(4.0)
    await asyncio.gather(*waiting)
    assert bucket.wait_s((0, 0, 0, 0)) == 0.0


@in_virtual_time
async def test_what_is_given_back_goes_to_the_first_in_line_at_once(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, None, None), 10.0, clock)
    await bucket.acquire((10, 0, 0, 0))
    waiting = asyncio.create_task(bucket.acquire((8, 0, 0, 0)))
    await asyncio.sleep(2.0)
    bucket.give_back((6, 0, 0, 0))
    await waiting
    assert clock.monotonic() == pytest.approx(2.0)


@in_virtual_time
async def test_a_bucket_that_is_whole_stays_whole(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, None, None), 10.0, clock)
    await asyncio.sleep(5.0)
    bucket.give_back((1, 0, 0, 0))
    assert bucket.levels[0] == 10.0
    await bucket.acquire((10, 0, 0, 0))
    await asyncio.sleep(9.0)
    bucket.give_back((3, 0, 0, 0))
    assert bucket.levels[0] == 10.0


@in_virtual_time
async def test_words_in_a_refusal_are_words(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, 1.0, None), 10.0, clock)
    with pytest.raises(TooLong, match=r"needs 11 input tokens at once, and .*: raise input_tokens_per_min or burst_s"):
        await bucket.acquire((1, 0, 11, 0))


@in_virtual_time
async def test_a_turn_that_comes_in_the_instant_of_a_cancellation_is_given_back(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, None, None), 2.0, clock)
    await bucket.acquire((2, 0, 0, 0))
    waiting = asyncio.create_task(bucket.acquire((2, 0, 0, 0)))
    await asyncio.sleep(0)
    bucket.give_back((2, 0, 0, 0))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert bucket.levels[0] == 2.0


# -- what replies tell ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_each_dimension_is_learned_by_its_own_header(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, None, None), 60.0, clock)
    assert not bucket.limited
    bucket.learn(RateHints())
    assert not bucket.limited
    bucket.learn(
        RateHints(
            requests=(10.0, 4.0, 6.0),
            tokens=(100.0, 50.0, 50.0),
            input_tokens=(9.0, 8.0, 4.0),
            output_tokens=(8.0, 7.0, 2.0),
        )
    )
    assert bucket.limited
    assert bucket.levels == [4.0, 50.0, 8.0, 7.0]
    await asyncio.sleep(1.0)
    assert bucket.gauges() == {
        "rate_limit_waiting": 0,
        "rate_limit_requests_left": 5.0,
        "rate_limit_tokens_left": 51.0,
        "rate_limit_input_tokens_left": 8.25,
        "rate_limit_output_tokens_left": 7.5,
    }
    await asyncio.sleep(1000.0)
    assert bucket.wait_s((11, 0, 0, 0)) == pytest.approx(1.0)  # no more is saved up than the limit


@in_virtual_time
async def test_a_limit_of_one_is_a_limit(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, None, None), 60.0, clock)
    bucket.learn(RateHints(requests=(1.0, 0.0, 10.0)))
    await bucket.acquire((1, 0, 0, 0))
    assert clock.monotonic() == pytest.approx(10.0)


@in_virtual_time
async def test_a_configured_burst_is_never_raised_and_one_that_was_learned_follows_the_headers(
    clock: VirtualClock,
) -> None:
    configured = VectorBucket((10.0, None, None, None), 1.0, clock)
    configured.learn(RateHints(requests=(100.0, 50.0, 5.0)))
    assert configured.levels[0] == 10.0
    with pytest.raises(TooLong, match="lets 10 pass"):
        await configured.acquire((11, 0, 0, 0))
    learned = VectorBucket((None, None, None, None), 1.0, clock)
    learned.learn(RateHints(requests=(10.0, 5.0, 5.0)))
    learned.learn(RateHints(requests=(100.0, 50.0, 5.0)))
    await learned.acquire((60, 0, 0, 0))
    assert clock.monotonic() == pytest.approx(5.5)


@in_virtual_time
async def test_a_success_teaches_every_twentieth_of_a_second_and_a_failure_at_once(clock: VirtualClock) -> None:
    made = branch(clock, policy(requests_per_min=60_000, burst_s=10))
    left = iter(range(9000, 0, -1000))
    executor = Answers(hints=lambda: RateHints(requests=(10_000.0, float(next(left)), 1000.0)))
    stage = chain([route, rate_limit], made, executor)
    levels = []
    for pause, error in ((0.0, None), (0.04, None), (0.01, None), (0.01, ServerFailed("boom")), (0.04, None)):
        await asyncio.sleep(pause)
        executor.error = error
        with nullcontext() if error is None else pytest.raises(ServerFailed):
            await stage(request(), context(clock))
        levels.append(round(bucket_in(made).levels[0], -3))
    assert levels == [9000, 9000, 8000, 7000, 7000]


@pytest.mark.parametrize(
    "said", [(10.0, 10.0, 5.0), (10.0, 4.0, 0.0), (0.0, 0.0, 5.0), (0.0, -1.0, 5.0), (10.0, 11.0, 5.0)]
)
def test_a_header_that_says_nothing_changes_nothing(said: tuple[float, float, float]) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        unlimited = VectorBucket((None, None, None, None), 60.0, clock)
        unlimited.learn(RateHints(requests=said))
        assert not unlimited.limited
        bucket = VectorBucket((1.0, None, None, None), 60.0, clock)
        bucket.learn(RateHints(requests=said))
        assert bucket.limited
        assert bucket.levels[0] == 60.0

    scenario()


@in_virtual_time
async def test_a_header_lowers_the_burst_too_and_a_later_one_raises_no_level(clock: VirtualClock) -> None:
    bucket = VectorBucket((1.0, None, None, None), 60.0, clock)
    bucket.learn(RateHints(requests=(20.0, 15.0, 50.0)))
    assert bucket.levels[0] == 15.0
    bucket.learn(RateHints(requests=(20.0, 18.0, 20.0)))
    assert bucket.levels[0] == 15.0
    await asyncio.sleep(500.0)
    assert bucket.wait_s((20, 0, 0, 0)) == 0.0
    with pytest.raises(TooLong, match=r"21 requests at once, and .* lets 20 pass"):
        await bucket.acquire((21, 0, 0, 0))


@in_virtual_time
async def test_who_waits_for_more_than_a_lowered_limit_is_told_and_blocks_nobody(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, 1.0, None), 100.0, clock)
    await bucket.acquire((1, 0, 100, 0))
    large = asyncio.create_task(bucket.acquire((1, 0, 50, 0)))
    small = asyncio.create_task(bucket.acquire((1, 0, 5, 0)))
    left = asyncio.create_task(bucket.acquire((1, 0, 50, 0)))
    await asyncio.sleep(0)
    left.cancel()
    bucket.learn(RateHints(input_tokens=(10.0, 0.0, 10.0)))
    await small
    assert clock.monotonic() == pytest.approx(5.0)
    assert isinstance(large.exception(), TooLong)
    assert bucket.waiting == 0


@in_virtual_time
async def test_refused_in_the_instant_of_its_cancellation_it_gives_nothing_back(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, 1.0, None), 100.0, clock)
    await bucket.acquire((1, 0, 100, 0))
    large = asyncio.create_task(bucket.acquire((1, 0, 50, 0)))
    await asyncio.sleep(0)
    bucket.learn(RateHints(input_tokens=(10.0, 0.0, 10.0)))
    large.cancel()
    await asyncio.wait([large])
    assert bucket.levels[2] == 0.0


@in_virtual_time
async def test_a_higher_rate_lets_the_waiting_through_sooner(clock: VirtualClock) -> None:
    bucket = VectorBucket((None, None, None, None), 60.0, clock)
    bucket.learn(RateHints(requests=(10.0, 0.0, 1000.0)))
    waiting = asyncio.create_task(bucket.acquire((1, 0, 0, 0)))
    await asyncio.sleep(1.0)
    bucket.learn(RateHints(requests=(10.0, 0.0, 10.0)))
    await waiting
    assert clock.monotonic() == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("error", [None, ServerFailed("boom"), Throttled("no", status=429)])
def test_the_reply_of_a_failed_call_teaches_too(error: InferenceError | None) -> None:
    for fields in ({}, {"requests_per_min": 6000}):

        @in_virtual_time
        async def scenario(clock: VirtualClock, fields: Any = fields) -> None:
            made = branch(clock, policy(**fields), keys=("A",))
            executor = Answers(error=error, hints=lambda: RateHints(requests=(10.0, 2.0, 8.0)))
            with nullcontext() if error is None else pytest.raises(type(error)):
                await chain([route, rate_limit], made, executor)(request(), context(clock))
            assert bucket_in(made, "A").levels[0] == 2.0

        scenario()


@in_virtual_time
async def test_of_a_failed_call_all_that_the_provider_may_have_counted_stays_taken(clock: VirtualClock) -> None:
    made = branch(clock, policy(**LIMITS))
    with pytest.raises(ServerFailed):
        await chain([route, rate_limit], made, Answers(error=ServerFailed("no connection")))(ASKED, context(clock))
    assert bucket_in(made).levels == [59.0, 6000.0 - 110, 590.0, 6000.0]


@in_virtual_time
async def test_a_failure_right_after_a_success_teaches_also_where_no_limit_is_known(clock: VirtualClock) -> None:
    made = branch(clock, policy())
    executor = Answers(hints=RateHints)
    stage = chain([route, rate_limit], made, executor)
    await stage(request(), context(clock))
    executor.error = ServerFailed("boom")
    executor.noted = {"hints": lambda: RateHints(requests=(10.0, 2.0, 8.0))}
    with pytest.raises(ServerFailed):
        await stage(request(), context(clock))
    assert bucket_in(made).levels[0] == 2.0


@in_virtual_time
async def test_nothing_is_learned_when_that_is_off(clock: VirtualClock) -> None:
    made = branch(clock, policy(requests_per_min=60, learn=False))
    stage = chain([route, rate_limit], made, Answers(hints=lambda: RateHints(requests=(10.0, 2.0, 8.0))))
    await stage(request(), context(clock))
    assert bucket_in(made).levels[0] == 59.0


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_there_when_it_has_something_to_do(clock: VirtualClock) -> None:
    local = LocalProviderSpec(kind="local", default_model="m")

    def settings_of(spec: PolicySpec, **fields: Any) -> str | None:
        layer = rate_limit.layer(branch(clock, spec, **fields))
        return layer.settings if layer else None

    assert settings_of(policy()) == "learns from headers"
    limited = policy(requests_per_min=60, output_tokens_per_min=9000)
    assert settings_of(limited) == "requests=60/min output_tokens=9000/min burst=60 s per key learns from headers"
    assert settings_of(policy(tokens_per_min=5, learn=False)) == "tokens=5/min burst=60 s per key"
    assert settings_of(policy(learn=False)) is None
    assert settings_of(policy(), provider=local) is None
    assert settings_of(policy(input_tokens_per_min=5), provider=local) == "input_tokens=5/min burst=60 s per key"
    assert settings_of(PolicySpec(rate_limit=RateLimitSpec(requests_per_min=5))) is None


class AgainstANaiveLimiter(RuleBasedStateMachine):
    """The bucket against levels and a line that are worked through second by second."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.names = count()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.line: list[tuple[int, tuple[float, float]]] = []
        self.at = 0.0

    @initialize(rates=st.sampled_from([(1.0, 4.0), (2.0, 1.0), (0.5, None)]))
    def begin(self, rates: tuple[float, float | None]) -> None:
        self.rates = [rate if rate is not None else float("inf") for rate in rates]
        self.capacities = [8.0 * rate for rate in self.rates]
        self.levels = list(self.capacities)
        self.bucket = VectorBucket((rates[0], None, rates[1], None), 8.0, self.clock)

    @rule(requests=st.sampled_from([1.0, 2.0]), tokens=st.sampled_from([0.0, 1.0, 3.0, 8.0]))
    def come(self, requests: float, tokens: float) -> None:
        name, cost = next(self.names), (requests, 0.0, tokens, 0.0)
        self.tasks[name] = self.loop.create_task(self.bucket.acquire(cost))
        self._settle()
        if requests > self.capacities[0] or tokens > self.capacities[1]:
            assert isinstance(self.tasks.pop(name).exception(), TooLong)
            return
        self.line.append((name, (requests, tokens)))
        self._work()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.line:
            place = data.draw(st.integers(0, len(self.line) - 1))
            name, _ = self.line.pop(place)
            self.tasks.pop(name).cancel()
            self._settle()
            self._work()

    @rule(requests=st.sampled_from([0.0, 1.0]), tokens=st.sampled_from([-3.0, 0.0, 2.0]))
    def put_right(self, requests: float, tokens: float) -> None:
        async def act() -> None:
            self.bucket.give_back((requests, 0.0, tokens, 0.0))

        self.loop.run_until_complete(act())
        self.levels = [
            min(most, level + more)
            for most, level, more in zip(self.capacities, self.levels, (requests, tokens), strict=True)
        ]
        self._work()

    @rule(quarters=st.integers(1, 20))
    def pass_time(self, quarters: int) -> None:
        for _ in range(quarters):
            self.loop.run_until_complete(asyncio.sleep(0.25))
            self.levels = [
                min(most, level + 0.25 * rate)
                for most, level, rate in zip(self.capacities, self.levels, self.rates, strict=True)
            ]
            self._work()

    def _work(self) -> None:
        while self.line:
            _, cost = self.line[0]
            if any(level < amount - 1e-6 for level, amount in zip(self.levels, cost, strict=True)):
                break
            self.levels = [level - amount for level, amount in zip(self.levels, cost, strict=True)]
            self.line.pop(0)
        self._settle()

    def _settle(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(1e-6))

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "bucket"):
            return
        waiting = [name for name, _ in self.line]
        assert [name for name, task in sorted(self.tasks.items()) if not task.done()] == waiting
        assert self.bucket.waiting == len(waiting)
        self.bucket.gauges()
        levels = [self.bucket.levels[0], self.bucket.levels[2]]
        assert levels == pytest.approx(self.levels, abs=0.01)

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()


AgainstANaiveLimiter.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestAgainstANaiveLimiter = pytest.mark.slow(AgainstANaiveLimiter.TestCase)
