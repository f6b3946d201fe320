"""The deadline: one limit over all attempts of a request, and nobody's fault but its own."""

import asyncio
from typing import Any

import pytest

from engine.core.errors import DeadlineExceeded, ServerFailed
from engine.core.virtual_time import VirtualClock
from engine.middleware import breaker, deadline, queue, retry, route, timeout
from engine.middleware.breaker import State
from engine.schemas.policy import BreakerSpec, DeadlineSpec, PolicySpec, QueueSpec, RetrySpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request


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


def plan(**fields: Any) -> PolicySpec:
    return PolicySpec(deadline=DeadlineSpec(**fields))


@in_virtual_time
async def test_the_policys_deadline_is_the_shorter_one(clock: VirtualClock) -> None:
    stage = chain([deadline, route], branch(clock, plan(total_s=10.0)), Scripted(100.0))
    said = r"request mine was not finished within 10 s; raise policy\.deadline\.total_s or the request's deadline_s"
    with pytest.raises(DeadlineExceeded, match=said):
        await stage(request("mine", deadline_s=30.0), context(clock))
    assert clock.monotonic() == pytest.approx(10.0)


@in_virtual_time
async def test_a_request_has_no_limit_unless_somebody_sets_one(clock: VirtualClock) -> None:
    mine = context(clock)
    assert (await chain([deadline, route], branch(clock, plan()), Scripted(1e6))(request(), mine)).ok
    assert mine.deadline is None
    result = await chain([deadline, route], branch(clock, plan()), Scripted(1e6))(
        request(), context(clock, stream=True)
    )
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 3


@in_virtual_time
async def test_what_ends_in_time_is_left_alone_and_so_is_what_comes_after(clock: VirtualClock) -> None:
    for starts in ("submit", "first_attempt"):
        stage = chain([deadline, route], branch(clock, plan(total_s=5.0, starts=starts)), Scripted(4.9))
        assert (await stage(request(), context(clock))).ok
        await asyncio.sleep(50.0)


@in_virtual_time
async def test_the_stages_further_in_know_the_deadline_and_it_starts_once(clock: VirtualClock) -> None:
    await asyncio.sleep(3.0)
    mine = context(clock)
    executor = Scripted(ServerFailed("boom", retry_after_s=2.0), 0.0)
    await chain([deadline, retry, route], branch(clock, plan(total_s=50.0)), executor)(request(), mine)
    assert mine.deadline == pytest.approx(53.0)
    assert mine.on_first_attempt is None


@in_virtual_time
async def test_a_failure_before_the_deadline_stays_what_it_is(clock: VirtualClock) -> None:
    with pytest.raises(ServerFailed):
        await chain([deadline, route], branch(clock, plan(total_s=5.0)), Scripted(ServerFailed("boom")))(
            request(), context(clock)
        )
    await asyncio.sleep(50.0)


@in_virtual_time
async def test_a_caller_who_leaves_is_no_deadline(clock: VirtualClock) -> None:
    stage = chain([deadline, route], branch(clock, plan(total_s=5.0)), Scripted(100.0))
    task = asyncio.create_task(stage(request(), context(clock)))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@in_virtual_time
async def test_a_deadline_from_the_first_attempt_covers_the_stream_as_well(clock: VirtualClock) -> None:
    executor = Scripted(3.0, chunks=10, chunk_s=1.0)
    stage = chain([deadline, queue, route], branch(clock, plan(total_s=5.5)), executor)
    result = await stage(request("mine"), context(clock, stream=True))
    assert result.stream is not None
    seen = 0
    with pytest.raises(DeadlineExceeded, match=r"request mine .* within 5\.5 s"):
        async for _ in result.stream:
            seen += 1
    assert seen == 3
    assert clock.monotonic() == pytest.approx(5.5)
    assert executor.streams_closed == 1


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    def settings_of(**fields: Any) -> str | None:
        layer = deadline.layer(branch(clock, plan(**fields)))
        return layer.settings if layer else None

    assert settings_of() == "total=the request's own starts=first_attempt"
    assert settings_of(total_s=60.0, starts="submit") == "total=60 s starts=submit"
    assert settings_of(enabled=False) is None
