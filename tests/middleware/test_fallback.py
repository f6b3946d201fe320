"""Fallback: which target is next, for which failures; and the wait for a circuit to close."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine import Request
from engine.core.errors import (
    FAILURES,
    CircuitOpen,
    ConfigError,
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    ServerFailed,
    TooLong,
    Truncated,
)
from engine.core.pipeline import Stage
from engine.core.request import Attempt, Context, Result
from engine.core.virtual_time import VirtualClock
from engine.middleware.fallback import Fallback
from engine.schemas.policy import BreakerSpec, FallbackSpec, PolicySpec, RetrySpec
from tests.middleware.chain import Scripted, context, in_virtual_time, request


def over(clock: VirtualClock, *branches: Stage, windows: Sequence[int | None] | None = None, **policy: Any) -> Fallback:
    names = [f"t{index}" for index in range(len(branches))]
    return Fallback(branches, names, windows or [None] * len(branches), PolicySpec(**policy), clock)


def opened(seconds: float | None, probing: bool = False) -> CircuitOpen:
    error = CircuitOpen("open", retry_after_s=seconds)
    error.probing = probing
    return error


class Trying:
    """Counts an attempt with every call, as `route` does; takes the next step, of which the last repeats."""

    def __init__(self, *steps: InferenceError | None) -> None:
        self.steps = list(steps)
        self.calls: list[tuple[str, str | None]] = []

    async def __call__(self, request: Request, context: Context) -> Result:
        step = self.steps[min(len(self.calls), len(self.steps) - 1)]
        self.calls.append((context.role, context.why))
        if not isinstance(step, CircuitOpen):
            context.role, context.why = "first", None
            context.record.attempts.append(Attempt("t"))
        if step is not None:
            raise step
        return Result(request.id or "", {})


# -- the next target --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_only_what_another_target_may_do_better_goes_on(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        first, second = Trying(FAILURES[kind]("no")), Trying(None)
        stage = over(clock, first, second, breaker=BreakerSpec(on_open="fail"))
        elsewhere = {
            "throttled", "quota_exhausted", "auth", "truncated", "malformed", "timeout", "connect", "server",
            "overloaded", "circuit_open", "queue_full", "internal",
        }  # fmt: skip
        if kind in elsewhere:
            assert (await stage(request(), context(clock))).ok
            assert second.calls == [("fallback", f"t0 failed: {kind}")]
        else:
            with pytest.raises(FAILURES[kind]):
                await stage(request(), context(clock))
            assert second.calls == []

    scenario()


@in_virtual_time
async def test_the_words_can_be_chosen(clock: VirtualClock) -> None:
    second = Trying(None)
    on = FallbackSpec(on=("content_filtered",))
    assert (await over(clock, Trying(ContentFiltered("no")), second, fallback=on)(request(), context(clock))).ok
    with pytest.raises(ServerFailed):
        await over(clock, Trying(ServerFailed("no")), second, fallback=on)(request(), context(clock))
    with pytest.raises(ConfigError, match=r"policy\.fallback\.on: 'time_out' is not a failure; did you mean timeout"):
        over(clock, second, fallback=FallbackSpec(on=("time_out",)))


@in_virtual_time
async def test_the_targets_are_tried_in_order_and_the_last_error_is_the_answer(clock: VirtualClock) -> None:
    branches = [Trying(ServerFailed(str(index))) for index in range(3)]
    mine = context(clock)
    mine.last_key, mine.last_endpoint = "A", 1
    with pytest.raises(ServerFailed, match="2"):
        await over(clock, *branches)(request(), mine)
    assert [branch.calls for branch in branches] == [
        [("first", None)],
        [("fallback", "t0 failed: server")],
        [("fallback", "t1 failed: server")],
    ]
    assert (mine.last_key, mine.last_endpoint) == (None, None)


@in_virtual_time
async def test_an_order_of_its_own_is_kept(clock: VirtualClock) -> None:
    branches = [Trying(ServerFailed(str(index))) for index in range(3)]
    stage = over(clock, *branches)
    assert (stage.after("t0"), stage.after("t2")) == ((1, 2, 0), (0, 1, 2))
    assert (stage.starting("t0"), stage.starting("t2")) == ((0, 1, 2), (2, 0, 1))
    mine = context(clock)
    mine.order = (2, 1)
    with pytest.raises(ServerFailed, match="1"):
        await stage(request(), mine)
    assert [len(branch.calls) for branch in branches] == [0, 1, 1]


@pytest.mark.parametrize(
    ("windows", "tried"),
    [
        ((100, 50, 200), [1, 0, 1]),
        ((100, 100, 101), [1, 0, 1]),
        ((100, None, 100), [1, 0, 0]),
        ((None, 100, 200), [1, 0, 0]),
        ((100, 150, 200), [1, 1, 1]),
    ],
)
def test_too_long_goes_only_to_larger_windows(windows: tuple[int | None, ...], tried: list[int]) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        branches = [Trying(TooLong("no")) for _ in windows]
        with pytest.raises(TooLong):
            await over(clock, *branches, windows=windows)(request(), context(clock))
        assert [len(branch.calls) for branch in branches] == tried

    scenario()


@in_virtual_time
async def test_too_long_is_not_routed_when_the_word_is_not_there(clock: VirtualClock) -> None:
    second = Trying(None)
    stage = over(clock, Trying(TooLong("no")), second, windows=(1, 2), fallback=FallbackSpec(on=("server",)))
    with pytest.raises(TooLong):
        await stage(request(), context(clock))
    assert second.calls == []


@in_virtual_time
async def test_a_request_whose_attempts_are_used_up_goes_no_further(clock: VirtualClock) -> None:
    second = Trying(None)
    mine = context(clock)
    mine.record.max_attempts = 1
    with pytest.raises(ServerFailed):
        await over(clock, Trying(ServerFailed("no")), second)(request(), mine)
    assert second.calls == []
    assert mine.record.warnings == ["all its 1 attempts are used up (policy.budget.max_attempts)"]


@in_virtual_time
async def test_the_last_targets_failure_is_no_warning_about_attempts(clock: VirtualClock) -> None:
    mine = context(clock)
    mine.record.max_attempts = 1
    with pytest.raises(ServerFailed):
        await over(clock, Trying(ServerFailed("no")))(request(), mine)
    assert mine.record.warnings == []


@in_virtual_time
async def test_a_stream_that_fails_before_its_first_chunk_goes_to_the_next_target(clock: VirtualClock) -> None:
    class Broken(Scripted):
        async def _stream(self, first_s: float) -> Any:
            raise Truncated("cut")
            yield

    second = Scripted(0.0)
    result = await over(clock, Broken(0.0), second)(request(), context(clock, stream=True))
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 3
    assert second.calls == 1


# -- open circuits ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_waits_for_the_circuit_that_may_close_first_and_asks_only_those(clock: VirtualClock) -> None:
    first, second, third = Trying(opened(20.0), None), Trying(ServerFailed("no")), Trying(opened(7.0), None)
    mine = context(clock)
    assert (await over(clock, first, second, third)(request(), mine)).ok
    assert clock.monotonic() == pytest.approx(7.0)
    assert [len(branch.calls) for branch in (first, second, third)] == [2, 1, 1]


@in_virtual_time
async def test_fail_fast_says_so_at_once(clock: VirtualClock) -> None:
    for fields in ({"on_open": "fail"}, {"enabled": False}):
        with pytest.raises(CircuitOpen):
            await over(clock, Trying(opened(7.0)), breaker=BreakerSpec(**fields))(request(), context(clock))  # type: ignore[arg-type]
        assert clock.monotonic() == 0.0


@in_virtual_time
async def test_it_waits_for_twice_as_many_openings_as_there_are_tries(clock: VirtualClock) -> None:
    for spec, waits in (
        (RetrySpec(max_retries=3), 8),
        (RetrySpec(max_retries=0), 2),
        (RetrySpec(max_retries=9, enabled=False), 2),
    ):
        branch, started = Trying(opened(5.0)), clock.monotonic()
        with pytest.raises(CircuitOpen):
            await over(clock, branch, retry=spec)(request(), context(clock))
        assert len(branch.calls) == waits + 1
        assert clock.monotonic() - started == pytest.approx(5.0 * waits)


@in_virtual_time
async def test_a_job_waits_for_as_long_as_it_takes(clock: VirtualClock) -> None:
    branch = Trying(*[opened(5.0)] * 100, None)
    mine = context(clock)
    mine.patient = True
    assert (await over(clock, branch)(request(), mine)).ok
    assert clock.monotonic() == pytest.approx(500.0)


@in_virtual_time
async def test_probes_under_way_are_no_opening(clock: VirtualClock) -> None:
    branch = Trying(*[opened(1.0, probing=True)] * 50, None)
    assert (await over(clock, branch, retry=RetrySpec(max_retries=1))(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(50.0)
    branch = Trying(*[opened(1.0, probing=True)] * 50, None)
    assert (
        await over(clock, branch, Trying(opened(2.0)), retry=RetrySpec(max_retries=1))(request(), context(clock))
    ).ok


@in_virtual_time
async def test_a_wait_that_would_pass_the_deadline_fails_now(clock: VirtualClock) -> None:
    for deadline, waits in ((5.0, False), (5.5, True)):
        mine = context(clock)
        mine.deadline = clock.monotonic() + deadline
        branch = Trying(opened(5.0), None)
        if waits:
            assert (await over(clock, branch)(request(), mine)).ok
        else:
            with pytest.raises(CircuitOpen):
                await over(clock, branch)(request(), mine)
            assert clock.monotonic() == 0.0


@in_virtual_time
async def test_a_circuit_opened_by_hand_is_not_waited_for(clock: VirtualClock) -> None:
    mine = context(clock)
    mine.patient = True
    with pytest.raises(CircuitOpen):
        await over(clock, Trying(opened(None)))(request(), mine)
    by_hand, other = Trying(opened(None)), Trying(opened(9.0), None)
    assert (await over(clock, by_hand, other)(request(), mine)).ok
    assert clock.monotonic() == pytest.approx(9.0)
    assert (len(by_hand.calls), len(other.calls)) == (2, 2)


@pytest.mark.parametrize("error", [ContentFiltered("no"), InvalidRequest("no")])
def test_what_another_target_said_for_good_is_not_routed_around_by_waiting(error: InferenceError) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        first = Trying(opened(5.0), None)
        with pytest.raises(type(error)):
            await over(clock, first, Trying(error))(request(), context(clock))
        assert clock.monotonic() == 0.0
        assert len(first.calls) == 1

    scenario()


@in_virtual_time
async def test_too_long_waits_only_for_a_larger_window(clock: VirtualClock) -> None:
    small, large = Trying(opened(5.0), None), Trying(opened(9.0), None)
    failed = Trying(TooLong("no"))
    assert (await over(clock, small, large, failed, windows=(10, 30, 20))(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(9.0)
    assert (len(small.calls), len(large.calls)) == (1, 2)
    with pytest.raises(TooLong):
        await over(clock, Trying(opened(5.0), None), failed, windows=(10, 20))(request(), context(clock))


@in_virtual_time
async def test_a_request_whose_attempts_are_used_up_waits_for_nothing(clock: VirtualClock) -> None:
    mine = context(clock)
    mine.record.max_attempts = 1
    first = Trying(opened(5.0), None)
    with pytest.raises(ServerFailed):
        await over(clock, first, Trying(ServerFailed("no")))(request(), mine)
    assert len(mine.record.attempts) == 1
    assert len(first.calls) == 1


@in_virtual_time
async def test_while_probes_are_out_it_waits_for_what_they_find(clock: VirtualClock) -> None:
    probing = opened(1.0, probing=True)
    probing.change = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(33.0, probing.change.set_result, None)
    assert (await over(clock, Trying(probing, None))(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(33.0)


@in_virtual_time
async def test_or_for_another_circuit_that_may_close_before(clock: VirtualClock) -> None:
    probing = opened(1.0, probing=True)
    probing.change = asyncio.get_running_loop().create_future()
    probing.known_in_s = 30.0
    other = Trying(opened(8.0), None)
    assert (await over(clock, Trying(probing), other)(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(8.0)
    assert not probing.change.done()


@in_virtual_time
async def test_and_not_for_one_that_was_opened_by_hand(clock: VirtualClock) -> None:
    probing = opened(1.0, probing=True)
    probing.change = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(33.0, probing.change.set_result, None)
    by_hand = Trying(opened(None))
    assert (await over(clock, Trying(probing, None), by_hand)(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(33.0)
    assert len(by_hand.calls) == 1


@in_virtual_time
async def test_or_until_the_probes_have_had_their_time(clock: VirtualClock) -> None:
    probing = opened(1.0, probing=True)
    probing.change = asyncio.get_running_loop().create_future()
    probing.known_in_s = 12.0
    assert (await over(clock, Trying(probing, None))(request(), context(clock))).ok
    assert clock.monotonic() == pytest.approx(12.0)
