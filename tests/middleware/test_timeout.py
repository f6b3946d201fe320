"""The limits of one attempt: the whole call, the first token, and silence within a stream."""

import asyncio
from typing import Any

import pytest

from engine.core.errors import ServerFailed, TimedOut, Truncated
from engine.core.virtual_time import VirtualClock
from engine.middleware import timeout
from engine.schemas.policy import PolicySpec, TimeoutSpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time, request


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


def plan(**fields: Any) -> PolicySpec:
    return PolicySpec(timeout=TimeoutSpec(**fields))


@in_virtual_time
async def test_null_is_no_limit(clock: VirtualClock) -> None:
    here = branch(clock, plan(attempt_s=None, first_token_s=None, idle_s=None))
    executor = Scripted(1e6, chunk_s=1e6)
    assert (await chain([timeout], here, executor)(request(), context(clock))).ok
    result = await chain([timeout], here, executor)(request(), context(clock, stream=True))
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 3


@in_virtual_time
async def test_each_limit_is_for_its_own_kind_of_call(clock: VirtualClock) -> None:
    executor = Scripted(50.0, chunk_s=50.0)
    assert (
        await chain([timeout], branch(clock, plan(first_token_s=1.0, idle_s=1.0)), executor)(request(), context(clock))
    ).ok
    result = await chain([timeout], branch(clock, plan(attempt_s=1.0, idle_s=None)), executor)(
        request(), context(clock, stream=True)
    )
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 3


@in_virtual_time
async def test_what_is_quick_enough_is_left_alone_and_so_is_what_comes_after(clock: VirtualClock) -> None:
    stage = chain([timeout], branch(clock, plan(attempt_s=5.0, first_token_s=5.0, idle_s=5.0)), Scripted(4.9))
    assert (await stage(request(), context(clock))).ok
    await asyncio.sleep(50.0)
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    assert result.stream.primed
    await asyncio.sleep(50.0)  # its reader takes its time
    assert len([chunk async for chunk in result.stream]) == 3
    await asyncio.sleep(50.0)


@in_virtual_time
async def test_a_failure_in_time_stays_what_it_is(clock: VirtualClock) -> None:
    stage = chain([timeout], branch(clock, plan(attempt_s=5.0, first_token_s=5.0)), Scripted(ServerFailed("boom")))
    for stream in (False, True):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock, stream=stream))
        await asyncio.sleep(50.0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_is_no_timeout(stream: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        stage = chain([timeout], branch(clock, plan(attempt_s=5.0, first_token_s=5.0)), Scripted(100.0))
        task = asyncio.create_task(stage(request(), context(clock, stream=stream)))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    scenario()


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_at_the_very_end_of_the_limit_has_left(stream: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        stage = chain([timeout], branch(clock, plan(attempt_s=5.0, first_token_s=5.0)), Scripted(100.0))
        task = asyncio.create_task(stage(request(), context(clock, stream=stream)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(5.0, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    scenario()


@in_virtual_time
async def test_who_leaves_a_silent_stream_has_left_it_and_it_was_not_cut(clock: VirtualClock) -> None:
    executor = Scripted(0.0, chunk_s=100.0)
    result = await chain([timeout], branch(clock, plan(idle_s=5.0)), executor)(request(), context(clock, stream=True))
    stream = result.stream
    assert stream is not None
    outcomes: list[Any] = []
    stream.on_settle(outcomes.append)

    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [outcome.kind for outcome in outcomes] == ["cancelled"]
    assert executor.streams_closed == 1


@in_virtual_time
async def test_a_stream_that_breaks_in_time_stays_broken_as_it_was(clock: VirtualClock) -> None:
    class Breaking(Scripted):
        async def _stream(self, first_s: float) -> Any:
            async for chunk in super()._stream(first_s):
                yield chunk
            raise ServerFailed("cut")

    result = await chain([timeout], branch(clock, plan(idle_s=5.0)), Breaking(0.0))(
        request(), context(clock, stream=True)
    )
    assert result.stream is not None
    with pytest.raises(ServerFailed, match="cut"):
        async for _ in result.stream:
            pass
    await asyncio.sleep(50.0)


@in_virtual_time
async def test_the_limits_are_exact_however_many_there_are(clock: VirtualClock) -> None:
    ended: dict[float, float] = {}

    async def call(limit: float) -> None:
        try:
            await chain([timeout], branch(clock, plan(attempt_s=limit)), Scripted(100.0))(request(), context(clock))
        except TimedOut:
            ended[limit] = clock.monotonic()

    limits = [5.0, 5.1, 0.01, 0.26, 7.3, 5.249]
    here = [asyncio.create_task(call(limit)) for limit in limits]
    await asyncio.wait(here)
    assert ended == {limit: pytest.approx(limit) for limit in limits}


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    def settings_of(**fields: Any) -> str | None:
        layer = timeout.layer(branch(clock, plan(**fields)))
        return layer.settings if layer else None

    assert settings_of() == "attempt=600 s first_token=60 s idle=30 s"
    assert settings_of(first_token_s=None) == "attempt=600 s idle=30 s"
    assert settings_of(enabled=False) is None
