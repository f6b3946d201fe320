"""Retry: full jitter under a cap, hints obeyed, nothing retried that can't be helped."""

import asyncio

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request, waiting
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import Rng, SystemClock
from engine.errors import FAILURES, AuthFailed, CircuitOpen, InferenceError, ServerFailed, Throttled
from engine.middleware import breaker, deadline, retry, route
from engine.middleware.retry import Retry
from engine.virtual_time import VirtualClock
from schemas.policy import BreakerSpec, BudgetSpec, DeadlineSpec, PolicySpec, RetrySpec


def made(spec: RetrySpec) -> Retry:
    return Retry(Scripted(), "t", spec, SystemClock(), Rng(7), budget=None, park_after_s=60.0)


@given(st.integers(1, 12), st.floats(0, 60), st.floats(0, 10), st.floats(1, 4), st.floats(0, 30))
def test_a_delay_is_never_shorter_than_the_hint_nor_longer_than_the_cap(
    number: int, hint: float, initial: float, multiplier: float, cap: float
) -> None:
    stage = made(RetrySpec(initial_delay_s=initial, multiplier=multiplier, max_delay_s=cap))
    bound = min(cap, initial * multiplier ** (number - 1))
    assert 0 <= stage.delay(number, None) <= bound
    assert hint <= stage.delay(number, hint) <= max(bound, hint + bound)


def test_jitter_spreads_over_the_whole_bound() -> None:
    stage = made(RetrySpec(initial_delay_s=8.0, max_delay_s=8.0))
    delays = [stage.delay(1, None) for _ in range(2000)]
    assert min(delays) < 0.1
    assert max(delays) > 7.9
    assert sum(delays) / len(delays) == pytest.approx(4.0, abs=0.25)


@in_virtual_time
async def test_a_passing_failure_is_tried_again_and_each_try_is_recorded(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom", status=500), ServerFailed("boom"), 0.5)
    stage = chain([retry, route], branch(clock, PolicySpec()), executor)
    mine = context(clock)
    result = await stage(request(), mine)
    assert result.body == {"answer": 3}
    assert [attempt.outcome for attempt in mine.record.attempts] == ["server", "server", "ok"]
    assert [attempt.status for attempt in mine.record.attempts] == [500, None, None]
    assert mine.record.attempts[2].duration_s == pytest.approx(0.5)


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_only_failures_that_may_pass_are_retried(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        executor = Scripted(FAILURES[kind]("no"))
        policy = PolicySpec(retry=RetrySpec(max_retries=3), breaker=BreakerSpec(on_open="fail"))
        stage = chain([retry], branch(clock, policy), executor)
        with pytest.raises(FAILURES[kind]):
            await stage(request(), context(clock))
        may_pass = {"throttled", "overloaded", "timeout", "connect", "server", "truncated", "malformed"}
        assert executor.calls == (4 if kind in may_pass else 1)

    scenario()


@in_virtual_time
async def test_the_servers_hint_is_waited_out(clock: VirtualClock) -> None:
    stage = chain([retry], branch(clock, PolicySpec()), Scripted(Throttled("slow down", retry_after_s=42.0), 0.0))
    await stage(request(), context(clock))
    assert 42.0 <= clock.monotonic() <= 44.0


@in_virtual_time
async def test_a_hint_that_passes_the_deadline_fails_now(clock: VirtualClock) -> None:
    policy = PolicySpec(deadline=DeadlineSpec(total_s=10.0, starts="submit"))
    stage = chain([deadline, retry], branch(clock, policy), Scripted(Throttled("slow down", retry_after_s=42.0), 0.0))
    with pytest.raises(Throttled):
        await stage(request(), context(clock))
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_an_open_circuit_is_waited_for_and_costs_no_try(clock: VirtualClock) -> None:
    executor = Scripted(CircuitOpen("open", retry_after_s=3.0), CircuitOpen("open", retry_after_s=3.0), 0.0)
    policy = PolicySpec(retry=RetrySpec(max_retries=2), breaker=BreakerSpec(on_open="wait"))
    mine, made = context(clock), branch(clock, policy)
    await waiting(chain([retry, route], made, executor), made)(request(), mine)
    assert clock.monotonic() == pytest.approx(6.0)
    assert len(mine.record.attempts) == 1


@in_virtual_time
async def test_a_stream_is_retried_until_its_first_chunk_only(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom"), 0.0)
    result = await chain([retry], branch(clock, PolicySpec()), executor)(request(), context(clock, stream=True))
    assert result.stream is not None
    assert [chunk.body["index"] async for chunk in result.stream] == [0, 1, 2]
    assert executor.calls == 2


@in_virtual_time
async def test_a_refused_key_gives_way_to_the_next_one_at_once(clock: VirtualClock) -> None:
    executor = Scripted(AuthFailed("bad key", status=401), 0.0)
    mine = context(clock)
    made_branch = branch(clock, PolicySpec(), keys=("A", "B"))
    stage = chain([retry, route], made_branch, executor)
    await stage(request(), mine)
    assert executor.keys_used == ["A", "B"]
    assert [attempt.outcome for attempt in mine.record.attempts] == ["auth", "ok"]
    for _ in range(4):
        await stage(request(), context(clock))
    assert set(executor.keys_used[1:]) == {"B"}


@in_virtual_time
async def test_when_the_last_key_is_refused_the_error_is_clear_and_there_are_no_more_calls(clock: VirtualClock) -> None:
    executor = Scripted(AuthFailed("bad key"))
    stage = chain([retry, route], branch(clock, PolicySpec(), keys=("A", "B")), executor)
    for _ in range(3):
        with pytest.raises(InferenceError) as caught:
            await stage(request(), context(clock))
        assert caught.value.kind == "auth"
    assert executor.calls == 2


@in_virtual_time
async def test_a_retry_prefers_another_key(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom"), ServerFailed("boom"), 0.0)
    await chain([retry, route], branch(clock, PolicySpec(), keys=("A", "B")), executor)(request(), context(clock))
    assert executor.keys_used[0] != executor.keys_used[1] != executor.keys_used[2]


@in_virtual_time
async def test_slow_probes_after_an_outage_cost_the_waiting_nothing(clock: VirtualClock) -> None:
    executor = Scripted(*[ServerFailed("down")] * 4, 30.0)
    policy = PolicySpec(retry=RetrySpec(max_retries=5), breaker=BreakerSpec(min_calls=4, open_s=5))
    made = branch(clock, policy)
    stage = waiting(chain([retry, route, breaker], made, executor), made)
    results = await asyncio.gather(*(stage(request(), context(clock)) for _ in range(20)))
    assert len(results) == 20


@in_virtual_time
async def test_throttles_and_failures_have_limits_of_their_own(clock: VirtualClock) -> None:
    steps = [ServerFailed("boom"), Throttled("slow"), Throttled("slow"), ServerFailed("boom"), Throttled("slow")]
    spec = RetrySpec(max_retries=2, max_throttle_retries=3)
    executor = Scripted(*steps, 0.0)
    await chain([retry], branch(clock, PolicySpec(retry=spec)), executor)(request(), context(clock))
    assert executor.calls == 6
    executor = Scripted(*steps, ServerFailed("once too often"), 0.0)
    with pytest.raises(ServerFailed, match="once too often") as caught:
        await chain([retry], branch(clock, PolicySpec(retry=spec)), executor)(request(), context(clock))
    assert caught.value.__cause__ is steps[0]


@in_virtual_time
async def test_a_hint_beyond_park_after_ends_the_tries_at_this_target(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("come back tomorrow", retry_after_s=86400.0), 0.0)
    with pytest.raises(Throttled):
        await chain([retry], branch(clock, PolicySpec()), executor)(request(), context(clock))
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_a_throttled_key_gives_way_to_another_without_waiting_for_its_hint(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=50.0), 0.0)
    mine = context(clock)
    await chain([retry, route], branch(clock, PolicySpec(), keys=("A", "B")), executor)(request(), mine)
    assert executor.keys_used == ["A", "B"]
    assert clock.monotonic() <= 1.0
    assert mine.record.attempts[1].role == "retry"
    assert "throttled" in (mine.record.attempts[1].why or "")


@in_virtual_time
async def test_no_request_has_more_attempts_than_its_budget(clock: VirtualClock) -> None:
    executor = Scripted(ServerFailed("boom"))
    mine = context(clock)
    mine.record.max_attempts = 3
    with pytest.raises(ServerFailed):
        await chain([retry, route], branch(clock, PolicySpec()), executor)(request(), mine)
    assert executor.calls == 3
    assert mine.record.warnings == ["all its 3 attempts are used up (policy.budget.max_attempts)"]


@in_virtual_time
async def test_an_empty_budget_fails_with_the_first_error_or_makes_the_retries_wait(clock: VirtualClock) -> None:
    spec = BudgetSpec(capacity=28, failure_cost=14, refill_per_s=1, success_refund=0, on_empty="fail")
    quick = RetrySpec(max_retries=1, initial_delay_s=0)
    executor = Scripted(ServerFailed("boom"))
    stage = chain([retry], branch(clock, PolicySpec(budget=spec, retry=quick)), executor)
    for _ in range(5):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    assert executor.calls == 5 + 2
    patient = spec.model_copy(update={"on_empty": "wait"})
    stage = chain([retry], branch(clock, PolicySpec(budget=patient, retry=quick)), executor)
    started = clock.monotonic()
    for _ in range(5):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    assert executor.calls == 7 + 10
    assert clock.monotonic() - started == pytest.approx(3 * 14)


@in_virtual_time
async def test_a_success_gives_back_what_its_retries_took(clock: VirtualClock) -> None:
    made_branch = branch(clock, PolicySpec(budget=BudgetSpec(capacity=28, refill_per_s=0)))
    for _ in range(10):
        await chain([retry], made_branch, Scripted(ServerFailed("boom"), 0.0))(request(), context(clock))
    (budget,) = made_branch.resources.items("budget").values()
    assert budget.level == 28
