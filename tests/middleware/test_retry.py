"""Retry: full jitter under a cap, hints obeyed, nothing retried that can't be helped."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.clock import Rng, SystemClock
from engine.core.errors import (
    FAILURES,
    AuthFailed,
    CircuitOpen,
    InferenceError,
    InvalidRequest,
    Overloaded,
    ServerFailed,
    Throttled,
    Truncated,
)
from engine.core.request import Context, Request, Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.virtual_time import VirtualClock
from engine.middleware import breaker, deadline, retry, route
from engine.middleware.retry import Retry
from engine.middleware.retry_budget import RetryBudget
from engine.schemas.policy import BreakerSpec, BudgetSpec, DeadlineSpec, HedgeSpec, PolicySpec, RetrySpec, RouteSpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request, waiting


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


@in_virtual_time
async def test_the_bound_doubles_from_try_to_try_up_to_its_cap_and_never_overflows(clock: VirtualClock) -> None:
    stage = made(RetrySpec(initial_delay_s=1.0, multiplier=3.0, max_delay_s=20.0))
    longest = [max(stage.delay(number, None) for _ in range(300)) for number in (1, 2, 3, 4, 5000)]
    assert [pytest.approx(bound, rel=0.1) for bound in (1.0, 3.0, 9.0, 20.0, 20.0)] == longest


def test_those_who_got_the_same_hint_come_back_spread_by_a_tenth_of_it() -> None:
    stage = made(RetrySpec(initial_delay_s=16.0))
    delays = [stage.delay(1, 100.0) for _ in range(500)]
    assert 100.0 <= min(delays) < 100.5
    assert 109.0 < max(delays) <= 110.01
    delays = [made(RetrySpec(initial_delay_s=2.0)).delay(1, 100.0) for _ in range(500)]
    assert max(delays) <= 102.0
    stage = made(RetrySpec(initial_delay_s=16.0))
    assert len({round(stage.delay(1, 0.0), 6) for _ in range(50)}) > 40
    brief = [made(RetrySpec(initial_delay_s=0.001)).delay(1, 0.0) for _ in range(50)]
    assert max(brief) <= 0.001


@in_virtual_time
async def test_each_attempt_says_why_it_was_made(clock: VirtualClock) -> None:
    spec = RetrySpec(initial_delay_s=0.0)
    executor = Scripted(ServerFailed("boom"), Throttled("slow", retry_after_s=5.0), Overloaded("full"), 0.0)
    mine = context(clock)
    await chain([retry, route], branch(clock, PolicySpec(retry=spec)), executor)(request(), mine)
    assert [(attempt.role, attempt.why) for attempt in mine.record.attempts] == [
        ("first", None),
        ("retry", "try 2 after server: 0 s"),
        ("retry", "try 3 after throttled: 5 s, the server's hint is 5 s"),
        ("retry", "try 4 after overloaded: 0 s"),
    ]


@in_virtual_time
async def test_a_hint_that_was_not_waited_for_is_not_given_as_the_reason(clock: VirtualClock) -> None:
    executor = Scripted(Throttled("slow down", retry_after_s=50.0), 0.0)
    mine = context(clock)
    spec = RetrySpec(initial_delay_s=0.0)
    made_branch = branch(clock, PolicySpec(retry=spec), keys=("A", "B"))
    await chain([retry, route], made_branch, executor)(request(), mine)
    assert mine.record.attempts[1].why == "try 2 after throttled: 0 s; B by round_robin"


@in_virtual_time
async def test_no_retries_means_one_try(clock: VirtualClock) -> None:
    for spec in (RetrySpec(max_retries=0), RetrySpec(max_retries=1), RetrySpec(max_retries=5, max_throttle_retries=0)):
        executor = Scripted(Throttled("no"))
        with pytest.raises(Throttled):
            await chain([retry], branch(clock, PolicySpec(retry=spec)), executor)(request(), context(clock))
        assert executor.calls == (2 if spec.max_retries == 1 else 1)


@in_virtual_time
async def test_the_last_error_is_raised_with_the_first_as_its_cause(clock: VirtualClock) -> None:
    errors = [ServerFailed("first"), ServerFailed("second"), InvalidRequest("last")]
    with pytest.raises(InvalidRequest) as caught:
        await chain([retry], branch(clock, PolicySpec()), Scripted(*errors))(request(), context(clock))
    assert caught.value.__cause__ is errors[0]
    with pytest.raises(InvalidRequest) as caught:
        await chain([retry], branch(clock, PolicySpec()), Scripted(InvalidRequest("only")))(request(), context(clock))
    assert caught.value.__cause__ is None


@in_virtual_time
async def test_a_cause_that_is_known_is_kept(clock: VirtualClock) -> None:
    socket = OSError("reset")
    last = InvalidRequest("last")
    last.__cause__ = socket
    with pytest.raises(InvalidRequest) as caught:
        await chain([retry], branch(clock, PolicySpec()), Scripted(ServerFailed("first"), last))(
            request(), context(clock)
        )
    assert caught.value.__cause__ is socket


@in_virtual_time
async def test_a_hint_as_long_as_park_after_is_still_waited_for(clock: VirtualClock) -> None:
    policy = PolicySpec(route=RouteSpec(park_after_s=30.0))
    await chain([retry], branch(clock, policy), Scripted(Throttled("slow", retry_after_s=30.0), 0.0))(
        request(), context(clock)
    )
    assert clock.monotonic() >= 30.0


def budget_of(clock: VirtualClock, **fields: Any) -> tuple[Any, RetryBudget]:
    fields = {"capacity": 100, "failure_cost": 14, "throttle_cost": 5, "refill_per_s": 0, **fields}
    made_branch = branch(
        clock, PolicySpec(budget=BudgetSpec(**fields), retry=RetrySpec(initial_delay_s=1.0, max_retries=3))
    )
    layer = retry.layer(made_branch)
    assert layer is not None
    return made_branch, layer.arguments["budget"]


@in_virtual_time
async def test_a_request_that_fails_for_good_keeps_what_its_retries_took(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock)
    with pytest.raises(ServerFailed):
        await chain([retry], made_branch, Scripted(Throttled("slow"), ServerFailed("boom")))(request(), context(clock))
    assert budget.level == 100 - 5 - 14 * 3


@in_virtual_time
async def test_a_request_without_retries_puts_a_little_in(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock, success_refund=2.0)
    budget.try_take(50.0)
    await chain([retry], made_branch, Scripted(0.0))(request(), context(clock))
    assert budget.level == 52.0
    await chain([retry], made_branch, Scripted(ServerFailed("boom"), 0.0))(request(), context(clock))
    assert budget.level == 52.0


@in_virtual_time
async def test_who_leaves_before_its_next_try_gets_the_tokens_back(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock)
    stage = chain([retry], made_branch, Scripted(ServerFailed("boom", retry_after_s=10.0), 100.0))
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(5.0)
    assert budget.level == 86
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert budget.level == 100
    assert clock.monotonic() == 5.0
    task = asyncio.create_task(
        chain([retry], made_branch, Scripted(ServerFailed("boom"), 100.0))(request(), context(clock))
    )
    await asyncio.sleep(5.0)
    task.cancel()
    await asyncio.wait([task])
    assert budget.level == 86  # that try was made


@in_virtual_time
async def test_a_try_that_the_deadline_forbids_costs_nothing(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock)
    mine = context(clock)
    mine.deadline = 10.0
    with pytest.raises(ServerFailed):
        await chain([retry], made_branch, Scripted(ServerFailed("boom", retry_after_s=10.0)))(request(), mine)
    assert budget.level == 100
    assert clock.monotonic() == 0.0


@in_virtual_time
async def test_at_the_deadline_there_is_no_other_try_even_without_a_wait(clock: VirtualClock) -> None:
    mine = context(clock)
    mine.deadline = 0.0
    executor = Scripted(ServerFailed("boom"))
    with pytest.raises(ServerFailed):
        await chain([retry], branch(clock, PolicySpec(retry=RetrySpec(initial_delay_s=0.0))), executor)(request(), mine)
    assert executor.calls == 1


@in_virtual_time
async def test_the_wait_after_a_throttle_grows_with_the_throttles_and_not_with_the_failures(
    clock: VirtualClock,
) -> None:
    spec = RetrySpec(initial_delay_s=1.0, multiplier=100.0, max_delay_s=1e6)
    boom, slow = ServerFailed("boom"), Throttled("slow")
    for steps in ([boom, boom, boom, slow, 0.0], [slow, slow, slow, boom, 0.0]):
        mine = context(clock)
        await chain([retry, route], branch(clock, PolicySpec(retry=spec)), Scripted(*steps))(request(), mine)
        waits = [after.started_s for after in mine.record.attempts]
        assert waits[4] - waits[3] <= 1.0
        assert waits[3] - waits[2] > 1.0


def test_a_short_hint_is_obeyed_too() -> None:
    stage = made(RetrySpec(initial_delay_s=0.05))
    assert min(stage.delay(1, 0.06) for _ in range(200)) >= 0.06


@in_virtual_time
async def test_tries_before_an_open_circuit_count_after_it_and_are_paid_back(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock)
    boom = ServerFailed("boom")
    executor = Scripted(boom, CircuitOpen("open", retry_after_s=60.0), 0.0)
    mine = context(clock)
    assert (await waiting(chain([retry], made_branch, executor), made_branch)(request(), mine)).ok
    assert budget.level == 100
    executor = Scripted(boom, boom, CircuitOpen("open", retry_after_s=60.0), boom, boom, boom)
    mine = context(clock)
    with pytest.raises(ServerFailed):
        await waiting(chain([retry], made_branch, executor), made_branch)(request(), mine)
    assert executor.calls == 5
    assert budget.level == 100 - 14 * 3


@in_virtual_time
async def test_an_open_circuit_is_raised_at_once_with_what_was_tried_before(clock: VirtualClock) -> None:
    made_branch, budget = budget_of(clock)
    boom = ServerFailed("boom")
    executor = Scripted(boom, CircuitOpen("open", retry_after_s=60.0), 0.0)
    with pytest.raises(CircuitOpen) as caught:
        await chain([retry], made_branch, executor)(request(), context(clock))
    assert caught.value.__cause__ is boom
    assert budget.level == 86


class Breaking:
    """Streams that give so many chunks and then break; a number less than 1 fails before the first one."""

    def __init__(self, *chunks: int) -> None:
        self.chunks = list(chunks)
        self.calls = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        self.calls += 1
        return Result("r", stream=ChunkStream(self._chunks(self.chunks[min(self.calls, len(self.chunks)) - 1])))

    async def _chunks(self, number: int) -> AsyncIterator[Chunk]:
        for index in range(number):
            yield Chunk({"index": index})
        raise Truncated("cut")


@in_virtual_time
async def test_a_stream_is_paid_back_at_its_first_chunk_and_begins_anew_when_it_is_asked_for_again(
    clock: VirtualClock,
) -> None:
    made_branch, budget = budget_of(clock)
    executor = Breaking(0, 0, 2)
    stage = chain([retry], made_branch, executor)
    mine = context(clock, stream=True)
    for calls in (3, 4):
        result = await stage(request(), mine)
        assert executor.calls == calls
        assert budget.level == 100
        assert result.stream is not None
        with pytest.raises(Truncated):
            async for _ in result.stream:
                pass
    executor.chunks, executor.calls = [0], 0
    with pytest.raises(Truncated):
        await stage(request(), mine)
    assert executor.calls == 4
    assert budget.level == 100 - 14 * 3


@in_virtual_time
async def test_a_stream_that_breaks_at_a_later_try_is_tried_again(clock: VirtualClock) -> None:
    executor = Breaking(0, 0, 0, 0)
    with pytest.raises(Truncated):
        await chain([retry], branch(clock, PolicySpec(retry=RetrySpec(max_retries=2))), executor)(
            request(), context(clock, stream=True)
        )
    assert executor.calls == 3


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off_or_hedged(clock: VirtualClock) -> None:
    def settings_of(**fields: Any) -> str | None:
        layer = retry.layer(branch(clock, PolicySpec(**fields)))
        return layer.settings if layer else None

    assert settings_of() == "max_retries=5 delay=1 s ×2 ≤16 s budget=500, empty: wait"
    spec = RetrySpec(max_retries=2, max_throttle_retries=9)
    off = BudgetSpec(enabled=False)
    assert settings_of(retry=spec, budget=off) == "max_retries=2 throttles=9 delay=1 s ×2 ≤16 s"
    assert settings_of(retry=RetrySpec(enabled=False)) is None
    assert settings_of(hedge=HedgeSpec(enabled=True)) is None
