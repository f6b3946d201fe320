"""Hedging: a slow call gets company, the first success counts, the others give everything back."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import (
    FAILURES,
    AuthFailed,
    CircuitOpen,
    ContentFiltered,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    QueueFull,
    ServerFailed,
    Throttled,
)
from engine.core.pipeline import Stage
from engine.core.request import Context, Request, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.virtual_time import VirtualClock, run
from engine.middleware import (
    breaker,
    deadline,
    hedge,
    queue,
    rate_limit,
    retry,
    route,
    timeout,
)
from engine.middleware import (
    retry_budget as budget,
)
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import (
    BreakerSpec,
    BudgetSpec,
    DeadlineSpec,
    HedgeSpec,
    PolicySpec,
    QueueSpec,
    RateLimitSpec,
    RouteSpec,
    TimeoutSpec,
)
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request, waiting

KEYS = ("K1", "K2", "K3")


def policy(after_s: float = 2.0, max_hedges: int = 1, **rest: object) -> PolicySpec:
    spec = rest.pop("spec", None) or HedgeSpec(enabled=True, after_s=after_s, percentile=None, max_hedges=max_hedges)
    return PolicySpec(hedge=spec, **rest)


def made(clock: VirtualClock, plan: PolicySpec, executor: Stage) -> tuple[Stage, LayerContext]:
    here = branch(clock, plan, keys=KEYS)
    return chain([deadline, retry, hedge, queue, route, rate_limit, breaker, timeout], here, executor), here


def held(here: LayerContext) -> dict[str, object]:
    """What the stages of a branch hold for calls."""
    gate = here.resources.get(("queue", "t"), lambda: None)
    ring = here.resources.get(("keys", "t"), lambda: None)
    return {"slots": gate.active, "waiting": gate.waiting, "keys": sum(ring.in_flight.values())}  # type: ignore[attr-defined]


def gauges(here: LayerContext) -> dict[str, float]:
    (pace,) = here.resources.items("hedge").values()
    found: dict[str, float] = pace.gauges()
    return found


NOTHING = {"slots": 0, "waiting": 0, "keys": 0}


@in_virtual_time
async def test_a_quick_call_stays_alone(clock: VirtualClock) -> None:
    executor = Scripted(1.9)
    stage, here = made(clock, policy(), executor)
    mine = context(clock)
    await stage(request(), mine)
    await asyncio.sleep(10)
    assert executor.calls == 1
    assert [attempt.role for attempt in mine.record.attempts] == ["first"]
    assert held(here) == NOTHING


@in_virtual_time
async def test_a_slow_call_gets_company_and_the_quicker_one_answers(clock: VirtualClock) -> None:
    executor = Scripted(60.0, 1.0)
    stage, here = made(clock, policy(), executor)
    mine = context(clock)
    result = await stage(request(), mine)
    assert result.body == {"answer": 2}
    assert clock.monotonic() == pytest.approx(3.0)
    slow, quick = mine.record.attempts
    assert (slow.role, slow.outcome, slow.message) == ("first", "cancelled", "another call was quicker")
    assert slow.duration_s == pytest.approx(3.0)
    assert (quick.role, quick.outcome) == ("hedge", "ok")
    assert "no answer within 2 s" in str(quick.why)
    assert mine.attempt is quick
    assert executor.active == 0
    assert held(here) == NOTHING


@in_virtual_time
async def test_the_first_call_may_still_win(clock: VirtualClock) -> None:
    executor = Scripted(3.0, 60.0)
    stage, here = made(clock, policy(), executor)
    mine = context(clock)
    await stage(request(), mine)
    assert clock.monotonic() == pytest.approx(3.0)
    assert [attempt.outcome for attempt in mine.record.attempts] == ["ok", "cancelled"]
    assert mine.attempt is mine.record.attempts[0]
    assert executor.active == 0
    assert held(here) == NOTHING


@in_virtual_time
async def test_another_call_goes_to_another_key(clock: VirtualClock) -> None:
    executor = Scripted(60.0, 60.0, 1.0)
    stage, _ = made(clock, policy(max_hedges=2, route=RouteSpec(keys="least_loaded")), executor)
    await stage(request(), context(clock))
    assert executor.keys_used == ["K1", "K2", "K3"]


@in_virtual_time
async def test_no_more_calls_begin_than_allowed(clock: VirtualClock) -> None:
    executor = Scripted(60.0)
    stage, _ = made(clock, policy(max_hedges=3), executor)
    mine = context(clock)
    await stage(request(), mine)
    assert executor.calls == 4
    assert [attempt.started_s for attempt in mine.record.attempts] == pytest.approx([0.0, 2.0, 4.0, 6.0])


@in_virtual_time
async def test_calls_count_against_the_attempts_of_the_request(clock: VirtualClock) -> None:
    executor = Scripted(60.0)
    stage, _ = made(clock, policy(max_hedges=5, budget=BudgetSpec(max_attempts=3)), executor)
    await stage(request(), context(clock))
    assert executor.calls == 3


@in_virtual_time
async def test_a_failure_that_may_pass_starts_the_next_call_at_once(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom"), 1.0)
    stage, here = made(clock, policy(), executor)
    mine = context(clock)
    result = await stage(request(), mine)
    assert result.body == {"answer": 2}
    assert clock.monotonic() == pytest.approx(1.0)
    assert "a call ended with server" in str(mine.record.attempts[1].why)
    assert held(here) == NOTHING


@in_virtual_time
async def test_a_failure_beside_a_call_under_way_starts_the_next_one_too(clock: VirtualClock) -> None:
    executor = Scripted(60.0, ServerFailed("boom"), 1.0)
    stage, _ = made(clock, policy(max_hedges=2), executor)
    await stage(request(), context(clock))
    assert executor.calls == 3
    assert clock.monotonic() == pytest.approx(3.0)


@in_virtual_time
async def test_when_all_have_failed_the_last_failure_is_raised_with_the_first_as_its_cause(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("one"), ServerFailed("two"), ServerFailed("three"))
    stage, here = made(clock, policy(max_hedges=2), executor)
    with pytest.raises(ServerFailed, match="three") as caught:
        await stage(request(), context(clock))
    assert str(caught.value.__cause__) == "one"
    assert executor.calls == 3
    assert held(here) == NOTHING


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_only_a_failure_that_may_pass_starts_another_call(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Scripted(FAILURES[kind]("no"))
        stage = chain([hedge], branch(clock, policy()), executor)
        with pytest.raises(FAILURES[kind]):
            await stage(request(), context(clock))
        assert executor.calls == (2 if FAILURES[kind].retryable else 1)

    scenario()


@pytest.mark.parametrize("error", [InvalidRequest("no"), ContentFiltered("no")])
def test_a_failure_of_the_request_itself_ends_every_call(error: InferenceError) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        for steps in ((60.0, error), (2.5, 60.0)):
            executor = Scripted(*steps)
            stage, here = made(clock, policy(), executor)
            started = clock.monotonic()
            if steps[1] is error:
                with pytest.raises(type(error)):
                    await stage(request(), context(clock))
                assert clock.monotonic() - started == pytest.approx(2.0)
            assert executor.active == 0
            assert held(here) == NOTHING

    scenario()


class Answers:
    """Each call takes its step: after so many seconds an answer or a failure."""

    def __init__(self, *steps: tuple[float, InferenceError | None]) -> None:
        self.steps = list(steps)
        self.calls = self.active = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        seconds, error = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        self.active += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.active -= 1
        if error is not None:
            raise error
        return Result(request.id or "", {"after": seconds})


@in_virtual_time
async def test_the_first_calls_own_failure_ends_a_call_beside_it(clock: VirtualClock) -> None:
    executor = Answers((3.0, InvalidRequest("no")), (60.0, None))
    stage, here = made(clock, policy(), executor)
    with pytest.raises(InvalidRequest):
        await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(3.0)
    assert executor.active == 0
    assert held(here) == NOTHING


@in_virtual_time
async def test_after_a_refused_key_what_is_under_way_may_still_succeed(clock: VirtualClock) -> None:
    executor = Answers((5.0, None), (0.5, AuthFailed("no")))
    stage = chain([hedge], branch(clock, policy(max_hedges=2)), executor)
    result = await stage(request(), context(clock))
    assert result.body == {"after": 5.0}
    assert executor.calls == 2


@in_virtual_time
async def test_a_refused_key_is_the_answer_when_nothing_else_succeeds(clock: VirtualClock) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (0.5, AuthFailed("no")))
    stage = chain([hedge], branch(clock, policy(max_hedges=2)), executor)
    with pytest.raises(AuthFailed):
        await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(5.0)


@in_virtual_time
async def test_a_full_queue_for_a_further_call_does_not_hide_what_the_provider_said(clock: VirtualClock) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (0.5, QueueFull("no")))
    stage = chain([hedge], branch(clock, policy(max_hedges=2)), executor)
    with pytest.raises(ServerFailed):
        await stage(request(), context(clock))
    assert executor.calls == 2


@in_virtual_time
async def test_a_hint_delays_the_next_call(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=30.0), 1.0)
    stage = chain([hedge], branch(clock, policy()), executor)
    await stage(request(), context(clock))
    assert 31.0 <= clock.monotonic() <= 34.1


@in_virtual_time
async def test_a_hint_of_one_call_delays_the_start_beside_another(clock: VirtualClock) -> None:
    executor = Answers((60.0, None), (0.5, Throttled("slow down", retry_after_s=30.0)), (1.0, None))
    stage = chain([hedge], branch(clock, policy(max_hedges=2)), executor)
    await stage(request(), context(clock))
    assert 33.5 <= clock.monotonic() <= 36.6


@in_virtual_time
async def test_a_hint_that_another_key_need_not_wait_for_is_not_waited_for(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=30.0), 1.0)
    stage, _ = made(clock, policy(), executor)
    await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(1.0)
    assert len(set(executor.keys_used)) == 2


@in_virtual_time
async def test_a_hint_beyond_park_after_ends_it_here(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=61.0))
    stage = chain([hedge], branch(clock, policy(route=RouteSpec(park_after_s=60.0))), executor)
    with pytest.raises(Throttled):
        await stage(request(), context(clock))
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_a_hint_that_passes_the_deadline_fails_now(clock: VirtualClock) -> None:
    plan = policy(deadline=DeadlineSpec(total_s=10.0, starts="submit"))
    stage = chain([deadline, hedge], branch(clock, plan), Scripted(Throttled("slow down", retry_after_s=42.0), 0.0))
    with pytest.raises(Throttled):
        await stage(request(), context(clock))
    assert clock.monotonic() == 0.0


# -- streams ------------------------------------------------------------------------------------------------------


async def read(result: Result) -> list[object]:
    assert result.stream is not None
    return [chunk.body["index"] async for chunk in result.stream]


@in_virtual_time
async def test_a_stream_is_quick_when_its_first_chunk_is(clock: VirtualClock) -> None:
    executor = Scripted(1.0, chunk_s=60.0)
    stage, here = made(clock, policy(timeout=TimeoutSpec(idle_s=None)), executor)
    assert await read(await stage(request(), context(clock, stream=True))) == [0, 1, 2]
    assert executor.calls == 1
    assert held(here) == NOTHING


@in_virtual_time
async def test_a_stream_without_a_first_chunk_gets_company(clock: VirtualClock) -> None:
    executor = Scripted(60.0, 1.0)
    stage, here = made(clock, policy(), executor)
    mine = context(clock, stream=True)
    result = await stage(request(), mine)
    assert clock.monotonic() == pytest.approx(3.0)
    assert executor.streams_closed == 1
    assert held(here)["slots"] == 1
    assert await read(result) == [0, 1, 2]
    assert [(attempt.outcome, attempt.message) for attempt in mine.record.attempts] == [
        ("cancelled", "another call was quicker"),
        ("ok", None),
    ]
    assert "no first chunk within 2 s" in str(mine.record.attempts[1].why)
    assert executor.streams_closed == 2
    assert held(here) == NOTHING


@in_virtual_time
async def test_a_stream_that_won_and_is_left_gives_everything_back(clock: VirtualClock) -> None:
    executor = Scripted(60.0, 1.0)
    stage, here = made(clock, policy(), executor)
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    await result.stream.aclose()
    assert executor.streams_closed == 2
    assert held(here) == NOTHING


# -- queue, deadline, circuit, budget -----------------------------------------------------------------------------


@in_virtual_time
async def test_the_wait_in_the_queue_does_not_count(clock: VirtualClock) -> None:
    executor = Scripted(1.5)
    stage, here = made(clock, policy(queue=QueueSpec(concurrency=1)), executor)
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(10)))
    assert executor.calls == 10
    assert clock.monotonic() == pytest.approx(15.0)
    assert gauges(here)["hedges_total"] == 0


@in_virtual_time
async def test_the_percentile_is_of_the_calls_not_of_their_wait(clock: VirtualClock) -> None:
    spec = HedgeSpec(enabled=True, after_s=100.0, percentile=0.99, min_samples=10)
    stage, here = made(clock, policy(spec=spec, queue=QueueSpec(concurrency=1)), Scripted(1.5))
    await asyncio.gather(*(stage(request(str(n)), context(clock)) for n in range(10)))
    assert gauges(here)["hedge_chat_delay_s"] == pytest.approx(1.5)


@in_virtual_time
async def test_a_further_call_keeps_the_deadline_and_avoids_the_key_of_the_slow_one(clock: VirtualClock) -> None:
    seen: list[tuple[float | None, str | None]] = []

    class Watching(Scripted):
        async def __call__(self, request: Request, context: Context) -> Result:
            seen.append((context.deadline, context.last_key))
            return await super().__call__(request, context)

    for starts in ("submit", "first_attempt"):
        seen.clear()
        spec = DeadlineSpec(total_s=50.0, starts=starts)
        stage, _ = made(clock, policy(deadline=spec), Watching(60.0, 0.0))
        due = clock.monotonic() + 50.0
        await stage(request(), context(clock))
        assert seen == [(due, None), (due, "K1")]


@in_virtual_time
async def test_a_call_that_replaces_a_failed_one_is_not_put_off_by_one_that_leaves_the_queue(
    clock: VirtualClock,
) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (60.0, None))
    stage, here = made(clock, policy(max_hedges=2, queue=QueueSpec(concurrency=1)), executor)
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(5.1)
    assert gauges(here)["hedges_total"] == 2
    assert executor.calls == 2
    await task


@in_virtual_time
async def test_a_deadline_that_no_call_started_is_left_for_the_next_target(clock: VirtualClock) -> None:
    def begin() -> None:
        raise AssertionError("no call has begun")

    mine = context(clock)
    mine.on_first_attempt = begin
    stage = chain([hedge], branch(clock, policy()), Scripted(QueueFull("no")))
    with pytest.raises(QueueFull):
        await stage(request(), mine)
    assert mine.on_first_attempt is begin


@in_virtual_time
async def test_the_request_goes_on_with_what_is_known_of_the_winner(clock: VirtualClock) -> None:
    class Marks(Scripted):
        async def __call__(self, request: Request, context: Context) -> Result:
            context.prefilled = self.calls > 0
            return await super().__call__(request, context)

    stage, _ = made(clock, policy(), Marks(60.0, 1.0))
    mine = context(clock)
    await stage(request(), mine)
    assert mine.prefilled


@in_virtual_time
async def test_the_request_goes_on_with_what_is_known_of_the_last_failure(clock: VirtualClock) -> None:
    stage, _ = made(clock, policy(), Scripted(ServerFailed("one"), ServerFailed("two")))
    mine = context(clock)
    with pytest.raises(ServerFailed):
        await stage(request(), mine)
    assert mine.attempt is mine.record.attempts[1]
    assert mine.last_key == mine.record.attempts[1].key


@in_virtual_time
async def test_a_call_that_leaves_the_queue_and_is_slow_gets_company(clock: VirtualClock) -> None:
    executor = Scripted(1.5, 60.0, 1.0)
    stage, _ = made(clock, policy(queue=QueueSpec(concurrency=2)), executor)
    blocker = asyncio.create_task(stage(request("0"), context(clock)))
    await asyncio.sleep(0)
    await stage(request("1"), context(clock))
    await blocker
    assert executor.calls == 3
    assert clock.monotonic() == pytest.approx(3.0)


@pytest.mark.parametrize("starts", ["submit", "first_attempt"])
def test_the_deadline_ends_all_calls_and_starts_but_once(starts: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Scripted(60.0)
        spec = DeadlineSpec(total_s=5.0, starts=starts)
        stage, here = made(clock, policy(max_hedges=3, deadline=spec), executor)
        with pytest.raises(DeadlineExceeded):
            await stage(request(), context(clock))
        assert clock.monotonic() == pytest.approx(5.0)
        assert executor.calls == 3
        assert executor.active == 0
        assert held(here) == NOTHING

    scenario()


@in_virtual_time
async def test_an_open_circuit_is_waited_for_and_costs_no_call(clock: VirtualClock) -> None:
    plan = policy(breaker=BreakerSpec(min_calls=1, window=2, open_s=5.0, probes=1))
    executor = Scripted(ServerFailed("boom", status=500), 0.5)
    stage, here = made(clock, plan, executor)
    mine = context(clock)
    result = await waiting(stage, here)(request(), mine)
    assert result.body == {"answer": 2}
    assert not mine.tries
    assert 5.5 <= clock.monotonic() <= 6.1
    assert held(here) == NOTHING


@in_virtual_time
async def test_coming_back_after_an_open_circuit_brings_no_further_calls(clock: VirtualClock) -> None:
    plan = policy(breaker=BreakerSpec(min_calls=1, window=2, open_s=5.0, probes=1))
    executor = Scripted(ServerFailed("boom", status=500))
    stage, here = made(clock, plan, executor)
    with pytest.raises(ServerFailed):
        await waiting(stage, here)(request(), context(clock))
    assert executor.calls == 2


@in_virtual_time
async def test_an_empty_budget_keeps_slow_calls_alone(clock: VirtualClock) -> None:
    plan = policy(budget=BudgetSpec(capacity=20, failure_cost=14, success_refund=0, refill_per_s=0.001))
    executor = Scripted(5.0)
    stage, _ = made(clock, plan, executor)
    for name in range(5):
        await stage(request(str(name)), context(clock))
    assert executor.calls == 6


@in_virtual_time
async def test_success_pays_a_replaced_failure_back_but_not_a_slow_call(clock: VirtualClock) -> None:
    spec = BudgetSpec(capacity=100, failure_cost=14, success_refund=1, refill_per_s=0)
    for steps, left in (((ServerFailed("boom"), 0.0), 100.0), ((60.0, 0.0), 87.0)):
        here = branch(clock, policy(budget=spec))
        bucket = budget.budget_of(here)
        assert bucket is not None
        await chain([hedge], here, Scripted(*steps))(request(), context(clock))
        assert bucket.level == pytest.approx(left)


@in_virtual_time
async def test_tokens_for_a_call_that_never_began_are_given_back(clock: VirtualClock) -> None:
    here = branch(clock, policy(max_hedges=2, budget=BudgetSpec(capacity=100, success_refund=0, refill_per_s=0)))
    executor = Answers((5.0, None), (0.5, Throttled("slow down", retry_after_s=30.0)))
    await chain([hedge], here, executor)(request(), context(clock))
    bucket = budget.budget_of(here)
    assert bucket is not None
    assert bucket.level == pytest.approx(86.0)  # only the call that began because the first was slow


@in_virtual_time
async def test_a_failure_beside_another_is_paid_for_once(clock: VirtualClock) -> None:
    here = branch(clock, policy(max_hedges=2, budget=BudgetSpec(capacity=100, success_refund=0, refill_per_s=0)))
    throttled = Throttled("slow down", retry_after_s=30.0)
    executor = Answers((3.0, throttled), (2.0, ServerFailed("boom")), (1.0, None))
    await chain([hedge], here, executor)(request(), context(clock))
    assert clock.monotonic() > 34.0
    bucket = budget.budget_of(here)
    assert bucket is not None
    assert bucket.level == pytest.approx(86.0)


@pytest.mark.parametrize("on_empty", ["wait", "fail"])
def test_a_call_that_replaces_a_failed_one_waits_for_its_tokens_or_there_is_none(on_empty: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        spec = BudgetSpec(capacity=14, failure_cost=14, refill_per_s=1.0, on_empty=on_empty)
        executor = Scripted(ServerFailed("one"), ServerFailed("two"), 0.0)
        stage = chain([hedge], branch(clock, policy(max_hedges=2, budget=spec)), executor)
        if on_empty == "wait":
            await stage(request(), context(clock))
            assert clock.monotonic() == pytest.approx(14.0)
        else:
            with pytest.raises(ServerFailed, match="two"):
                await stage(request(), context(clock))

    scenario()


@in_virtual_time
async def test_without_a_budget_every_slow_call_gets_company(clock: VirtualClock) -> None:
    executor = Scripted(60.0, ServerFailed("boom"), 1.0)
    stage, _ = made(clock, policy(max_hedges=2, budget=BudgetSpec(enabled=False)), executor)
    await stage(request(), context(clock))
    assert executor.calls == 3


# -- the delay ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_once_enough_has_been_seen_the_percentile_is_the_delay(clock: VirtualClock) -> None:
    spec = HedgeSpec(enabled=True, after_s=30.0, percentile=0.9, min_samples=10)
    executor = Scripted(*[0.1 * (n + 1) for n in range(10)], 60.0, 0.05)
    here = branch(clock, policy(spec=spec))
    stage = chain([hedge, route], here, executor)
    for _ in range(10):
        await stage(request(), context(clock))
    started, mine = clock.monotonic(), context(clock)
    await stage(request(), mine)
    assert clock.monotonic() - started == pytest.approx(0.95)
    assert "no answer within 0.9 s" in str(mine.record.attempts[1].why)
    assert gauges(here)["hedges_total"] == 1
    assert gauges(here)["hedge_wins_total"] == 1


@in_virtual_time
async def test_the_delay_does_not_sink_with_each_hedge(clock: VirtualClock) -> None:
    """One call in ten is slow; were slow losers not counted, every quick call would soon be hedged."""
    spec = HedgeSpec(enabled=True, after_s=30.0, percentile=0.9, min_samples=20)
    here = branch(clock, policy(spec=spec, budget=BudgetSpec(enabled=False)))
    rng = here.resources.rng
    executor = Scripted(*[rng.uniform(0.9, 1.1) * (10.0 if rng.random() < 0.1 else 1.0) for _ in range(2000)])
    stage = chain([hedge, route], here, executor)
    for _ in range(1000):
        await stage(request(), context(clock))
    assert executor.calls < 1150


# -- cancellation -------------------------------------------------------------------------------------------------


class Stepping:
    """Answers after so many turns of the loop: a cancellation can fall between any two."""

    def __init__(self, turns: list[int]) -> None:
        self.turns = turns
        self.calls = self.active = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        turns = self.turns[min(self.calls, len(self.turns) - 1)]
        self.calls += 1
        self.active += 1
        if context.stream:
            return Result(request.id or "", stream=ChunkStream(self._chunks(turns)))
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            await self._clean_up()
        if turns % 3 == 2:
            raise ServerFailed("boom")
        return Result(request.id or "", {"turns": turns})

    async def _clean_up(self) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self.active -= 1

    async def _chunks(self, turns: int) -> AsyncIterator[Chunk]:
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 3 == 2:
                raise ServerFailed("boom")
            yield Chunk({"index": 0})
        finally:
            await self._clean_up()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    st.integers(0, 25),
    st.booleans(),
    st.sampled_from([1e-10, 1.0]),
    st.booleans(),
)
def test_cancelled_at_any_point_nothing_is_left_behind(
    turns: list[int], when: int, stream: bool, after_s: float, twice: bool
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        executor = Stepping(turns)
        plan = policy(after_s=after_s, max_hedges=3, rate_limit=RateLimitSpec(enabled=True, requests_per_min=6e6))
        stage, here = made(clock, plan, executor)
        task = asyncio.create_task(stage(request(), context(clock, stream=stream)))
        for _ in range(when):
            await asyncio.sleep(0)
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        try:
            result = await task
        except (asyncio.CancelledError, ServerFailed):
            pass
        else:
            if result.stream is not None:
                assert len([chunk async for chunk in result.stream]) == 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert executor.active == 0
        assert held(here) == NOTHING
        assert len(asyncio.all_tasks()) == 1

    run(scenario)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.sampled_from([None, None, ServerFailed, Throttled, AuthFailed, InvalidRequest])),
        min_size=5,
        max_size=5,
    ),
    st.integers(1, 4),
)
def test_the_first_success_wins_and_nobody_is_called_in_vain(
    steps: list[tuple[float, type[InferenceError] | None]], hedges: int
) -> None:
    async def scenario(clock: VirtualClock) -> None:
        executor = Answers(*((seconds, error("no") if error else None) for seconds, error in steps))
        stage = chain([hedge, route], branch(clock, policy(max_hedges=hedges)), executor)
        mine = context(clock)
        (outcome,) = await asyncio.gather(stage(request(), mine), return_exceptions=True)
        outcomes = [attempt.outcome for attempt in mine.record.attempts]
        if isinstance(outcome, Result):
            attempt = mine.attempt
            assert attempt is not None
            assert outcome.body == {"after": steps[mine.record.attempts.index(attempt)][0]}
            ends = [
                other.started_s + seconds
                for other, (seconds, error) in zip(mine.record.attempts, steps, strict=False)
                if error is None
            ]
            assert clock.monotonic() == pytest.approx(min(ends))
        else:
            assert isinstance(outcome, InferenceError)
            assert outcome.kind in outcomes
            assert "ok" not in outcomes
        assert executor.calls <= hedges + 1
        assert executor.active == 0
        assert "running" not in outcomes

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_answers_in_one_instant_the_other_is_given_back(order: tuple[int, int], stream: bool) -> None:
    class OnDemand(Scripted):
        def __init__(self) -> None:
            super().__init__(chunks=1)
            self.gates = [asyncio.Event(), asyncio.Event()]

        async def __call__(self, request: Request, context: Context) -> Result:
            self.calls += 1
            if context.stream:
                return Result(request.id or "", stream=ChunkStream(self._gated(self.calls)))
            await self.gates[self.calls - 1].wait()
            return Result(request.id or "", {})

        async def _gated(self, call: int) -> AsyncIterator[Chunk]:
            try:
                await self.gates[call - 1].wait()
                yield Chunk({"index": call})
            finally:
                self.streams_closed += 1

    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = OnDemand()
        stage, here = made(clock, policy(), executor)
        mine = context(clock, stream=stream)
        task = asyncio.create_task(stage(request(), mine))
        await asyncio.sleep(3.0)
        for place in order:
            executor.gates[place].set()
        result = await task
        assert held(here)["slots"] == int(stream)
        if stream:
            assert executor.streams_closed == 1
            assert await read(result) == [order[0] + 1]
        winner, loser = (mine.record.attempts[place] for place in order)
        assert (winner.outcome, winner.message) == ("ok", None)
        assert loser.outcome in ("ok", "cancelled")
        assert loser.message == "another call was quicker"
        assert held(here) == NOTHING

    scenario()


@pytest.mark.parametrize("leaves_after_s", [3.0, 3.5])
def test_a_caller_who_leaves_after_the_race_is_won_leaves_nothing(leaves_after_s: float) -> None:
    """The first call takes a second to give back what it holds; the stream that won is closed as well."""

    class Lingers(Scripted):
        async def _stream(self, first_s: float) -> AsyncIterator[Chunk]:
            try:
                async for chunk in super()._stream(first_s):
                    yield chunk
            finally:
                if first_s > 10:
                    await asyncio.sleep(1.0)

    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Lingers(60.0, 1.0)
        stage, here = made(clock, policy(), executor)
        task = asyncio.create_task(stage(request(), context(clock, stream=True)))
        await asyncio.sleep(leaves_after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(2.0)
        assert executor.streams_closed == executor.calls
        assert held(here) == NOTHING

    scenario()


@in_virtual_time
async def test_a_closed_queue_leaves_a_call_under_way_alone(clock: VirtualClock) -> None:
    stage, here = made(clock, policy(queue=QueueSpec(concurrency=1)), Scripted(5.0))
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(3.0)
    here.resources.get(("queue", "t"), lambda: None).close()  # type: ignore[attr-defined]
    assert (await task).body == {"answer": 1}
    assert clock.monotonic() == pytest.approx(5.0)


@in_virtual_time
async def test_a_defect_of_the_first_call_is_not_taken_for_the_end_of_the_race(clock: VirtualClock) -> None:
    async def broken(request: Request, context: Context) -> Result:
        raise TimeoutError("a defect")

    with pytest.raises(TimeoutError, match="a defect"):
        await chain([hedge], branch(clock, policy()), broken)(request(), context(clock))
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_a_defect_in_a_further_call_is_not_swallowed(clock: VirtualClock) -> None:
    class Broken:
        calls = 0

        async def __call__(self, request: Request, context: Context) -> Result:
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError("a defect")
            await asyncio.sleep(60)
            return Result("", {})

    stage = chain([hedge], branch(clock, policy()), Broken())
    with pytest.raises(ZeroDivisionError):
        await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(2.0)


@in_virtual_time
async def test_a_closed_queue_cancels_the_request_when_only_further_calls_are_left(clock: VirtualClock) -> None:
    executor = Answers((1.0, ServerFailed("boom")), (1.0, None))
    stage, here = made(clock, policy(), executor)
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(0.5)
    here.resources.get(("queue", "t"), lambda: None).close()  # type: ignore[attr-defined]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert executor.calls == 1


@in_virtual_time
async def test_it_stands_in_the_place_of_retry(clock: VirtualClock) -> None:
    here = branch(clock, policy())
    assert retry.layer(here) is None
    assert hedge.layer(branch(clock, PolicySpec())) is None
    layer = hedge.layer(here)
    assert layer is not None
    assert layer.settings == "max_hedges=1 after 2 s budget=500"


@pytest.mark.parametrize("kind", ["invalid_request", "too_long", "content_filtered"])
def test_what_every_call_would_be_told_is_told_at_once(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Answers((60.0, None), (0.5, FAILURES[kind]("no")))
        stage, here = made(clock, policy(), executor)
        with pytest.raises(FAILURES[kind]):
            await stage(request(), context(clock))
        assert clock.monotonic() == pytest.approx(2.5)
        assert executor.active == 0
        assert held(here) == NOTHING

    scenario()


@in_virtual_time
async def test_a_circuit_that_is_open_for_a_further_call_does_not_hide_what_the_provider_said(
    clock: VirtualClock,
) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (0.5, CircuitOpen("no")))
    stage = chain([hedge], branch(clock, policy(max_hedges=2)), executor)
    with pytest.raises(ServerFailed):
        await stage(request(), context(clock))


@in_virtual_time
async def test_a_hint_as_long_as_park_after_is_still_waited_for(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=60.0), 1.0)
    await chain([hedge], branch(clock, policy(route=RouteSpec(park_after_s=60.0))), executor)(request(), context(clock))
    assert clock.monotonic() >= 61.0


@in_virtual_time
async def test_those_who_got_the_same_hint_come_back_spread_by_a_tenth_of_it(clock: VirtualClock) -> None:
    here = branch(clock, policy(budget=BudgetSpec(enabled=False)))
    stages = [chain([hedge], here, Scripted(Throttled("slow", retry_after_s=30.0), 0.0)) for _ in range(60)]
    times: list[float] = []

    async def one(stage: Stage) -> None:
        await stage(request(), context(clock))
        times.append(clock.monotonic())

    await asyncio.gather(*(one(stage) for stage in stages))
    assert 30.0 <= min(times) < 30.3
    assert 32.7 < max(times) <= 33.01


@in_virtual_time
async def test_at_the_deadline_no_further_call_begins(clock: VirtualClock) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (1.0, None))
    mine = context(clock)
    mine.deadline = 5.0
    stage = chain([hedge], branch(clock, policy(after_s=50.0)), executor)
    with pytest.raises(ServerFailed):
        await stage(request(), mine)
    assert executor.calls == 1


@in_virtual_time
async def test_a_cause_that_is_known_is_kept(clock: VirtualClock) -> None:
    socket = OSError("reset")
    last = ServerFailed("two")
    last.__cause__ = socket
    with pytest.raises(ServerFailed, match="two") as caught:
        await chain([hedge], branch(clock, policy()), Scripted(ServerFailed("one"), last))(request(), context(clock))
    assert caught.value.__cause__ is socket


@in_virtual_time
async def test_also_after_a_hint_of_no_time_they_come_back_spread(clock: VirtualClock) -> None:
    here = branch(clock, policy(budget=BudgetSpec(enabled=False)))
    stages = [chain([hedge], here, Scripted(Throttled("slow", retry_after_s=0.0), 0.0)) for _ in range(60)]
    times: list[float] = []

    async def one(stage: Stage) -> None:
        await stage(request(), context(clock))
        times.append(clock.monotonic())

    await asyncio.gather(*(one(stage) for stage in stages))
    assert 0.008 < max(times) <= 0.0101


@in_virtual_time
async def test_a_call_that_waits_in_the_queue_counts_against_the_attempts_of_the_request(clock: VirtualClock) -> None:
    executor = Answers((5.0, ServerFailed("boom")), (60.0, None))
    plan = policy(max_hedges=5, budget=BudgetSpec(max_attempts=3), queue=QueueSpec(concurrency=2))
    stage, here = made(clock, plan, executor)
    await stage(request(), context(clock))  # the third call waits when the first one fails
    assert executor.calls == 3
    assert gauges(here)["hedges_total"] == 2


@in_virtual_time
async def test_after_the_queue_was_closed_no_further_call_is_tried(clock: VirtualClock) -> None:
    stage, here = made(clock, policy(max_hedges=2, queue=QueueSpec(concurrency=1)), Answers((5.0, ServerFailed("no"))))
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(3.0)
    here.resources.get(("queue", "t"), lambda: None).close()  # type: ignore[attr-defined]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.monotonic() == pytest.approx(5.0)
    assert gauges(here)["hedges_total"] == 1


@in_virtual_time
async def test_tokens_are_given_back_once_however_many_calls_fail_after_that(clock: VirtualClock) -> None:
    here = branch(clock, policy(max_hedges=3, budget=BudgetSpec(capacity=100, success_refund=0, refill_per_s=0)))
    throttled = Throttled("slow down", retry_after_s=30.0)
    steps = ((10.0, ServerFailed("boom")), (3.0, throttled), (2.0, AuthFailed("no")))
    with pytest.raises(InferenceError):
        await chain([hedge], here, Answers(*steps))(request(), context(clock))
    assert clock.monotonic() == pytest.approx(10.0)
    bucket = budget.budget_of(here)
    assert bucket is not None
    assert bucket.level == pytest.approx(72.0)  # two calls that began because another one was slow


@in_virtual_time
async def test_for_a_caller_who_has_left_no_call_begins(clock: VirtualClock) -> None:
    executor = Scripted(60.0)
    stage, here = made(clock, policy(), executor)
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.sleep(10.0)
    assert executor.calls == 1
    assert held(here) == NOTHING


@in_virtual_time
async def test_what_answers_although_it_was_cancelled_is_given_back(clock: VirtualClock) -> None:
    class Stubborn(Scripted):
        async def __call__(self, request: Request, context: Context) -> Result:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                if not self.calls:
                    self.calls += 1
                    raise
            return Result(request.id or "", stream=ChunkStream(self._stream(0.0)))

    executor = Stubborn()
    task = asyncio.create_task(
        chain([hedge], branch(clock, policy()), executor)(request(), context(clock, stream=True))
    )
    await asyncio.sleep(3.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert executor.streams_closed == 1


@in_virtual_time
async def test_a_slow_loser_counts_with_its_own_time_and_a_quick_one_not_at_all(clock: VirtualClock) -> None:
    for seconds, percentile, seen in (((60.0, 1.0), 0.99, 3.0), ((60.0, 1.0), 0.01, 1.0), ((3.0, 60.0), 0.01, 3.0)):
        await asyncio.sleep(10.0)
        spec = HedgeSpec(enabled=True, after_s=2.0, percentile=percentile, min_samples=1)
        here = branch(clock, policy(spec=spec))
        await chain([hedge, route], here, Scripted(*seconds))(request(), context(clock))
        assert gauges(here)["hedge_chat_delay_s"] == pytest.approx(seen)


@in_virtual_time
async def test_however_often_the_circuit_opens_no_more_calls_begin_than_allowed(clock: VirtualClock) -> None:
    plan = policy(max_hedges=3, breaker=BreakerSpec(min_calls=1, window=2, open_s=5.0, probes=1))
    executor = Scripted(ServerFailed("boom", status=500))
    stage, here = made(clock, plan, executor)
    with pytest.raises(ServerFailed):
        await waiting(stage, here)(request(), context(clock))
    assert executor.calls == 4


@in_virtual_time
async def test_without_a_stage_that_waits_for_it_a_stream_is_slow_until_its_first_chunk(clock: VirtualClock) -> None:
    executor = Scripted(60.0, 1.0)
    await read(await chain([hedge], branch(clock, policy()), executor)(request(), context(clock, stream=True)))
    assert executor.calls == 2
    assert clock.monotonic() == pytest.approx(3.0)


@in_virtual_time
async def test_a_deadline_that_has_begun_is_not_begun_again_by_the_next_target(clock: VirtualClock) -> None:
    begun: list[float] = []
    mine = context(clock)
    mine.on_first_attempt = lambda: begun.append(clock.monotonic())
    here = branch(clock, policy())
    for _ in range(2):
        with pytest.raises(AuthFailed):
            await chain([hedge, route], here, Scripted(AuthFailed("no")))(request(), mine)
        assert mine.on_first_attempt is None
    assert begun == [0.0]


@in_virtual_time
async def test_the_plan_names_the_percentile(clock: VirtualClock) -> None:
    spec = HedgeSpec(enabled=True, after_s=2.0, percentile=0.9, min_samples=10)
    layer = hedge.layer(branch(clock, policy(spec=spec, budget=BudgetSpec(enabled=False))))
    assert layer is not None
    assert layer.settings == "max_hedges=1 after 2 s, or p90 of ≥10 calls"
