"""Deadline and timeout: whose time is over, and who is to blame."""

import asyncio

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request

from engine.errors import DeadlineExceeded, ServerFailed, TimedOut, Truncated
from engine.middleware import breaker, deadline, queue, retry, route, timeout
from engine.middleware.breaker import State
from engine.virtual_time import VirtualClock
from schemas.policy import BreakerSpec, DeadlineSpec, PolicySpec, QueueSpec, RetrySpec, TimeoutSpec


@in_virtual_time
async def test_an_attempt_that_takes_too_long_is_a_timeout(clock: VirtualClock) -> None:
    stage = chain([timeout], branch(clock, PolicySpec(timeout=TimeoutSpec(attempt_s=5.0))), Scripted(100.0))
    with pytest.raises(TimedOut, match="attempt_s"):
        await stage(request(), context(clock))
    assert clock.monotonic() == pytest.approx(5.0)


@in_virtual_time
async def test_the_first_token_has_its_own_limit(clock: VirtualClock) -> None:
    executor = Scripted(100.0)
    stage = chain([timeout], branch(clock, PolicySpec(timeout=TimeoutSpec(first_token_s=5.0))), executor)
    with pytest.raises(TimedOut, match="first_token_s"):
        await stage(request(), context(clock, stream=True))
    assert executor.streams_closed == 1


@in_virtual_time
async def test_silence_within_a_stream_has_its_own_limit(clock: VirtualClock) -> None:
    executor = Scripted(0.0, chunk_s=100.0)
    stage = chain([timeout], branch(clock, PolicySpec(timeout=TimeoutSpec(idle_s=5.0))), executor)
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    seen = []
    with pytest.raises(Truncated, match="idle_s"):
        async for chunk in result.stream:
            seen.append(chunk)
    assert len(seen) == 1
    assert executor.streams_closed == 1


@in_virtual_time
async def test_a_slow_but_steady_stream_is_not_cut(clock: VirtualClock) -> None:
    executor = Scripted(4.0, chunks=50, chunk_s=4.0)
    policy = PolicySpec(timeout=TimeoutSpec(attempt_s=5.0, first_token_s=5.0, idle_s=5.0))
    result = await chain([timeout], branch(clock, policy), executor)(request(), context(clock, stream=True))
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 50


@in_virtual_time
async def test_one_deadline_covers_all_attempts(clock: VirtualClock) -> None:
    policy = PolicySpec(
        deadline=DeadlineSpec(total_s=10.0), retry=RetrySpec(max_retries=100, initial_delay_s=3.0, max_delay_s=3.0)
    )
    executor = Scripted(ServerFailed("down"))
    stage = chain([deadline, retry, route], branch(clock, policy), executor)
    with pytest.raises(ServerFailed):
        await stage(request(), context(clock))
    assert clock.monotonic() <= 10.0
    assert executor.calls > 2


@in_virtual_time
async def test_a_requests_own_deadline_is_the_shorter_one(clock: VirtualClock) -> None:
    stage = chain([deadline, route], branch(clock, PolicySpec(deadline=DeadlineSpec(total_s=10.0))), Scripted(100.0))
    with pytest.raises(DeadlineExceeded, match="3 s"):
        await stage(request(deadline_s=3.0), context(clock))
    assert clock.monotonic() == pytest.approx(3.0)


@pytest.mark.parametrize(("starts", "succeeds"), [("submit", False), ("first_attempt", True)])
def test_the_wait_in_the_queue_counts_only_when_asked(starts: str, succeeds: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        policy = PolicySpec(
            deadline=DeadlineSpec(total_s=6.0, starts=starts),  # type: ignore[arg-type]
            queue=QueueSpec(concurrency=1),
        )
        stage = chain([deadline, queue, route], branch(clock, policy), Scripted(5.0))
        first, second = await asyncio.gather(
            *(stage(request(str(n)), context(clock)) for n in range(2)), return_exceptions=True
        )
        assert not isinstance(first, BaseException)
        assert isinstance(second, DeadlineExceeded) is not succeeds

    scenario()


@in_virtual_time
async def test_a_stream_ends_at_the_deadline(clock: VirtualClock) -> None:
    executor = Scripted(0.0, chunks=100, chunk_s=1.0)
    stage = chain([deadline, route], branch(clock, PolicySpec(deadline=DeadlineSpec(total_s=4.5))), executor)
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    seen = []
    with pytest.raises(DeadlineExceeded):
        async for chunk in result.stream:
            seen.append(chunk)
    assert len(seen) == 5
    assert executor.streams_closed == 1


@in_virtual_time
async def test_a_callers_short_deadline_is_not_the_providers_fault(clock: VirtualClock) -> None:
    policy = PolicySpec(breaker=BreakerSpec(min_calls=1))
    made = branch(clock, policy)
    stage = chain([deadline, route, breaker, timeout], made, Scripted(100.0))
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await stage(request(deadline_s=1.0), context(clock))
    (circuit,) = made.resources.items("breaker").values()
    assert circuit.state is State.CLOSED
