"""The breaker: opens on the endpoint's failures only, probes with few calls, is not confused by late results."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.clock import Rng
from engine.core.errors import FAILURES, CircuitOpen, InvalidRequest, ServerFailed, Throttled
from engine.core.request import Result
from engine.core.stream import Chunk, ChunkStream
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop
from engine.middleware import breaker, concurrency
from engine.middleware.breaker import Breaker, Permit, State, breakers_of
from engine.schemas.policy import BreakerSpec, ConcurrencySpec, PolicySpec
from engine.schemas.provider import LocalProviderSpec, RemoteProviderSpec
from tests.middleware.chain import EXAMPLES, Scripted, branch, chain, context, in_virtual_time, request, waiting

SPEC = BreakerSpec(window=10, min_calls=4, failure_threshold=0.5, open_s=10.0, max_open_s=30.0, probes=3)


def made(clock: VirtualClock) -> Breaker:
    return Breaker("t", SPEC, clock, Rng(1))


def fail(circuit: Breaker, times: int) -> None:
    for _ in range(times):
        circuit.settle(circuit.try_acquire(), True)


@in_virtual_time
async def test_it_opens_at_the_threshold_and_not_before_enough_calls(clock: VirtualClock) -> None:
    circuit = made(clock)
    fail(circuit, 3)
    assert circuit.state is State.CLOSED
    fail(circuit, 1)
    assert circuit.state is State.OPEN
    with pytest.raises(CircuitOpen) as caught:
        circuit.try_acquire()
    assert 10.0 <= (caught.value.retry_after_s or 0) <= 11.0


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_only_the_endpoints_own_failures_count(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        made_branch = branch(clock, PolicySpec(breaker=SPEC))
        stage = chain([breaker], made_branch, Scripted(FAILURES[kind]("no")))
        for _ in range(4):
            with pytest.raises(FAILURES[kind]):
                await stage(request(), context(clock))
        (circuit,) = made_branch.resources.items("breaker").values()
        counts = {"timeout", "connect", "server", "malformed", "truncated"}
        assert circuit.state is (State.OPEN if kind in counts else State.CLOSED)

    scenario()


@in_virtual_time
async def test_one_bad_request_does_not_open_it_for_everybody(clock: VirtualClock) -> None:
    executor = Scripted(*[InvalidRequest("bad")] * 50, 0.0)
    stage = chain([breaker], branch(clock, PolicySpec(breaker=SPEC)), executor)
    for _ in range(50):
        with pytest.raises(InvalidRequest):
            await stage(request(), context(clock))
    assert (await stage(request(), context(clock))).ok


@in_virtual_time
async def test_half_open_lets_exactly_the_probes_through(clock: VirtualClock) -> None:
    executor = Scripted(*[ServerFailed("down")] * 4, 1.0)
    stage = chain([breaker], branch(clock, PolicySpec(breaker=SPEC)), executor)
    for _ in range(4):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    await asyncio.sleep(12.0)
    outcomes = await asyncio.gather(*(stage(request(), context(clock)) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, CircuitOpen) for outcome in outcomes) == 47
    assert executor.peak == 3
    assert (await stage(request(), context(clock))).ok


@in_virtual_time
async def test_a_failed_recovery_doubles_the_pause_up_to_the_cap(clock: VirtualClock) -> None:
    circuit = made(clock)
    fail(circuit, 4)
    pauses = []
    for _ in range(4):
        with pytest.raises(CircuitOpen) as caught:
            circuit.try_acquire()
        pauses.append(caught.value.retry_after_s or 0)
        await asyncio.sleep(pauses[-1])
        fail(circuit, 2)
    assert [round(pause / 1.05, -1) for pause in pauses] == [10, 20, 30, 30]


@in_virtual_time
async def test_the_pause_is_never_shorter_than_a_hint(clock: VirtualClock) -> None:
    circuit = made(clock)
    fail(circuit, 3)
    circuit.settle(circuit.try_acquire(), True, retry_after_s=100.0)
    with pytest.raises(CircuitOpen) as caught:
        circuit.try_acquire()
    assert caught.value.retry_after_s == pytest.approx(100.0)


@in_virtual_time
async def test_late_results_of_an_earlier_generation_change_nothing(clock: VirtualClock) -> None:
    circuit = made(clock)
    late = [circuit.try_acquire() for _ in range(5)]
    fail(circuit, 4)
    await asyncio.sleep(12.0)
    probe = circuit.try_acquire()
    for permit in late:
        circuit.settle(permit, True)
    assert circuit.state is State.HALF_OPEN
    circuit.settle(probe, False)
    circuit.settle(circuit.try_acquire(), False)
    assert circuit.state is State.CLOSED
    for permit in late:
        circuit.settle(permit, True)
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_a_cancelled_probe_frees_its_place_and_says_nothing(clock: VirtualClock) -> None:
    executor = Scripted(*[ServerFailed("down")] * 4, 1000.0)
    made_branch = branch(clock, PolicySpec(breaker=SPEC))
    stage = chain([breaker], made_branch, executor)
    for _ in range(4):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    await asyncio.sleep(12.0)
    probes = [asyncio.create_task(stage(request(), context(clock))) for _ in range(3)]
    await asyncio.sleep(1.0)
    for probe in probes:
        probe.cancel()
    await asyncio.wait(probes)
    (circuit,) = made_branch.resources.items("breaker").values()
    assert circuit.state is State.HALF_OPEN
    assert circuit.try_acquire().generation == circuit.generation


@in_virtual_time
async def test_a_stream_that_breaks_later_counts_as_a_failure(clock: VirtualClock) -> None:
    made_branch = branch(clock, PolicySpec(breaker=BreakerSpec(min_calls=1)))
    stage = chain([breaker], made_branch, Scripted(0.0))
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    result.stream._settle(ServerFailed("cut"))
    (circuit,) = made_branch.resources.items("breaker").values()
    assert circuit.state is State.OPEN


def of(clock: VirtualClock, **fields: Any) -> Breaker:
    return Breaker("t", SPEC.model_copy(update=fields), clock, Rng(1))


def succeed(circuit: Breaker, times: int) -> None:
    for _ in range(times):
        circuit.settle(circuit.try_acquire(), False)


async def opened(clock: VirtualClock, **fields: Any) -> Breaker:
    """A circuit that may be tried again from now on."""
    circuit = of(clock, **fields)
    fail(circuit, 4)
    await asyncio.sleep(circuit.open_for_s)
    return circuit


# -- when it opens --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_only_a_failure_opens_it_and_only_at_its_share_of_the_window(clock: VirtualClock) -> None:
    circuit = of(clock)
    succeed(circuit, 4)
    fail(circuit, 3)
    assert circuit.state is State.CLOSED
    fail(circuit, 1)
    assert circuit.state is State.OPEN
    assert circuit.trips == circuit.gauges()["breaker_trips"] == 1


@in_virtual_time
async def test_what_has_left_the_window_counts_no_more(clock: VirtualClock) -> None:
    circuit = of(clock, window=5)
    fail(circuit, 2)
    succeed(circuit, 5)
    gauges = circuit.gauges()
    assert (gauges["breaker_window_calls"], gauges["breaker_window_failures"]) == (5, 0)
    fail(circuit, 2)
    assert circuit.state is State.CLOSED
    fail(circuit, 1)
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_calls_older_than_window_s_count_no_more(clock: VirtualClock) -> None:
    circuit = of(clock, window_s=60.0)
    fail(circuit, 3)
    await asyncio.sleep(60.0)
    assert circuit.gauges()["breaker_window_failures"] == 3
    succeed(circuit, 1)
    assert circuit.gauges()["breaker_window_calls"] == 4
    await asyncio.sleep(0.5)
    succeed(circuit, 1)
    gauges = circuit.gauges()
    assert (gauges["breaker_window_calls"], gauges["breaker_window_failures"]) == (2, 0)
    fail(circuit, 1)
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_failures_in_a_row_open_it_however_few_calls_there_were(clock: VirtualClock) -> None:
    circuit = of(clock, window=50, min_calls=50, consecutive_failures=3)
    fail(circuit, 2)
    succeed(circuit, 1)
    fail(circuit, 2)
    assert circuit.state is State.CLOSED
    fail(circuit, 1)
    assert circuit.state is State.OPEN


async def slow(circuit: Breaker, seconds: float, failed: bool = False) -> None:
    permit = circuit.try_acquire()
    await asyncio.sleep(seconds)
    circuit.settle(permit, failed)


@in_virtual_time
async def test_slow_calls_open_it_at_a_share_of_their_own(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0, slow_threshold=0.75)
    await slow(circuit, 2.0)
    assert circuit.gauges()["breaker_window_slow"] == 0
    for seconds in (2.1, 2.1):
        await slow(circuit, seconds)
    assert circuit.gauges()["breaker_window_slow"] == 2
    assert circuit.state is State.CLOSED
    await slow(circuit, 2.1)
    assert circuit.state is State.OPEN
    assert circuit.gauges()["breaker_window_slow"] == 0


@in_virtual_time
async def test_a_quick_success_does_not_open_it_whatever_the_share_of_slow_ones(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0, slow_threshold=0.5)
    for seconds in (2.1, 2.1, 2.1, 0.0):
        await slow(circuit, seconds)
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_calls_under_way_are_slow_before_they_end(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0)
    permits = [circuit.try_acquire() for _ in range(4)]
    await asyncio.sleep(2.0)
    permits.append(circuit.try_acquire())
    assert circuit.state is State.CLOSED
    await asyncio.sleep(0.1)
    with pytest.raises(CircuitOpen):
        circuit.try_acquire()
    assert circuit.state is State.OPEN
    for permit in permits:
        circuit.settle(permit, False)
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_a_call_found_slow_stands_in_the_window_once_and_may_yet_fail(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0, slow_threshold=1.0)
    permits = [circuit.try_acquire() for _ in range(3)]
    await asyncio.sleep(2.1)
    succeed(circuit, 3)
    gauges = circuit.gauges()
    assert [gauges[f"breaker_window_{what}"] for what in ("calls", "slow", "failures")] == [6, 3, 0]
    for permit in permits[:2]:
        circuit.settle(permit, True)
    gauges = circuit.gauges()
    assert [gauges[f"breaker_window_{what}"] for what in ("calls", "slow", "failures")] == [6, 3, 2]
    assert circuit.state is State.CLOSED
    circuit.settle(permits[2], True)
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_a_slow_call_that_ends_after_it_left_the_window_changes_no_count(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0, slow_threshold=1.0, window=4)
    permit = circuit.try_acquire()
    await asyncio.sleep(2.1)
    succeed(circuit, 5)
    circuit.settle(permit, True)
    gauges = circuit.gauges()
    assert [gauges[f"breaker_window_{what}"] for what in ("calls", "slow", "failures")] == [4, 0, 0]


@in_virtual_time
async def test_a_slow_call_under_way_opens_it_by_slowness_only(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0)
    permit = circuit.try_acquire()
    fail(circuit, 3)
    await asyncio.sleep(2.1)
    circuit.settle(circuit.try_acquire(), None)
    assert circuit.gauges()["breaker_window_calls"] == 4
    assert circuit.state is State.CLOSED
    circuit.settle(permit, None)


@in_virtual_time
async def test_a_failed_slow_call_leaves_the_window_with_all_that_it_counted_for(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0, slow_threshold=1.0, window=4)
    permit = circuit.try_acquire()
    await asyncio.sleep(2.1)
    succeed(circuit, 3)
    circuit.settle(permit, True)
    assert circuit.gauges()["breaker_window_failures"] == 1
    succeed(circuit, 4)
    gauges = circuit.gauges()
    assert [gauges[f"breaker_window_{what}"] for what in ("calls", "slow", "failures")] == [4, 0, 0]


@in_virtual_time
async def test_a_call_that_was_answered_hides_no_slow_one_behind_it(clock: VirtualClock) -> None:
    circuit = of(clock, slow_after_s=2.0)
    first, *others = [circuit.try_acquire() for _ in range(5)]
    await asyncio.sleep(2.0)
    circuit.answered(first)  # to the very second
    await asyncio.sleep(0.1)
    with pytest.raises(CircuitOpen):
        circuit.try_acquire()
    circuit.reset()
    permit = circuit.try_acquire()
    await asyncio.sleep(2.0)
    circuit.answered(permit)
    await asyncio.sleep(50.0)
    circuit.settle(permit, False)
    assert circuit.gauges()["breaker_window_slow"] == 0
    assert circuit.gauges()["breaker_window_calls"] == 1
    assert len(others) == 4


@in_virtual_time
async def test_a_slow_call_under_way_ends_no_row_of_failures(clock: VirtualClock) -> None:
    circuit = of(clock, min_calls=50, consecutive_failures=2, slow_after_s=2.0)
    fail(circuit, 1)
    permit = circuit.try_acquire()
    await asyncio.sleep(2.1)
    circuit.settle(circuit.try_acquire(), None)
    circuit.settle(permit, True)
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_of_a_stream_only_the_first_chunk_can_be_slow(clock: VirtualClock) -> None:
    plan = PolicySpec(breaker=SPEC.model_copy(update={"slow_after_s": 2.0, "slow_threshold": 0.5}))
    made_branch = branch(clock, plan)
    stage = chain([breaker], made_branch, Scripted(1.0, chunk_s=10.0))
    for _ in range(4):
        result = await stage(request(), context(clock, stream=True))
        assert result.stream is not None
        assert len([chunk async for chunk in result.stream]) == 3
    (circuit,) = made_branch.resources.items("breaker").values()
    gauges = circuit.gauges()
    assert (gauges["breaker_window_calls"], gauges["breaker_window_slow"]) == (4, 0)
    late = chain([breaker], made_branch, Scripted(3.0))
    for _ in range(4):
        result = await late(request(), context(clock, stream=True))
        assert result.stream is not None
        assert len([chunk async for chunk in result.stream]) == 3
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_a_first_chunk_that_is_there_already_is_not_slow(clock: VirtualClock) -> None:
    async def chunks() -> Any:
        yield Chunk({})
        await asyncio.sleep(50.0)

    async def primed(asked: Any, mine: Any) -> Result:
        stream = ChunkStream(chunks())
        await stream.prime()
        return Result("r", stream=stream)

    made_branch = branch(clock, PolicySpec(breaker=SPEC.model_copy(update={"slow_after_s": 2.0})))
    result = await chain([breaker], made_branch, primed)(request(), context(clock, stream=True))
    assert result.stream is not None
    assert len([chunk async for chunk in result.stream]) == 1
    (circuit,) = made_branch.resources.items("breaker").values()
    gauges = circuit.gauges()
    assert (gauges["breaker_window_calls"], gauges["breaker_window_slow"]) == (1, 0)


# -- while it is open -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_rejection_says_when_to_come_back_and_is_counted(clock: VirtualClock) -> None:
    circuit = of(clock)
    fail(circuit, 4)
    await asyncio.sleep(3.0)
    with pytest.raises(CircuitOpen, match=r"the circuit of t is open; next chance in [78]\.\d s") as caught:
        circuit.try_acquire()
    assert caught.value.retry_after_s == pytest.approx(circuit.open_for_s)
    assert not caught.value.probing
    assert circuit.rejections == circuit.gauges()["breaker_rejections"] == 1
    await asyncio.sleep(circuit.open_for_s)
    assert circuit.open_for_s == 0.0
    circuit.try_acquire()
    assert circuit.open_for_s == 0.0


@in_virtual_time
async def test_a_hint_with_a_throttle_delays_the_probes_of_the_next_outage_too(clock: VirtualClock) -> None:
    circuit = of(clock)
    circuit.settle(circuit.try_acquire(), None, retry_after_s=100.0)
    circuit.settle(circuit.try_acquire(), None, retry_after_s=5.0)
    fail(circuit, 4)
    assert circuit.open_for_s == pytest.approx(100.0)
    circuit.reset()
    fail(circuit, 4)
    assert 10.0 <= circuit.open_for_s <= 11.0


@in_virtual_time
async def test_the_gauge_says_its_state(clock: VirtualClock) -> None:
    circuit = of(clock)
    states = [circuit.gauges()["breaker_state"]]
    fail(circuit, 4)
    states.append(circuit.gauges()["breaker_state"])
    await asyncio.sleep(circuit.open_for_s)
    circuit.try_acquire()
    states.append(circuit.gauges()["breaker_state"])
    assert states == [0.0, 2.0, 1.0]


@in_virtual_time
async def test_at_the_very_start_nothing_is_known_of_any_hint(clock: VirtualClock) -> None:
    circuit = of(clock, open_s=0.5)
    fail(circuit, 4)
    assert circuit.open_for_s < 0.6
    circuit.reset()
    fail(circuit, 4)
    assert circuit.open_for_s < 0.6


# -- half open ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_majority_of_the_probes_decides_as_early_as_it_can(clock: VirtualClock) -> None:
    circuit = await opened(clock)
    probes = [circuit.try_acquire() for _ in range(3)]
    circuit.settle(probes[0], True)
    circuit.settle(probes[1], False)
    assert circuit.state is State.HALF_OPEN
    circuit.settle(probes[2], False)
    assert circuit.state is State.CLOSED
    fail(circuit, 4)
    assert 10.0 <= circuit.open_for_s <= 11.0  # not doubled: it had recovered
    await asyncio.sleep(circuit.open_for_s)
    probes = [circuit.try_acquire() for _ in range(3)]
    circuit.settle(probes[0], True)
    assert circuit.state is State.HALF_OPEN
    circuit.settle(probes[1], True)
    assert circuit.state is State.OPEN
    assert 20.0 <= circuit.open_for_s <= 22.0


@in_virtual_time
async def test_of_two_probes_both_must_succeed(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=2)
    probes = [circuit.try_acquire() for _ in range(2)]
    circuit.settle(probes[0], False)
    assert circuit.state is State.HALF_OPEN
    circuit.settle(probes[1], True)
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_a_rejection_while_probes_are_out_says_so_and_to_come_back_soon(clock: VirtualClock) -> None:
    for open_s, soon in ((10.0, 1.0), (1.0, 0.2)):
        circuit = await opened(clock, open_s=open_s, probes=1)
        circuit.try_acquire()
        with pytest.raises(CircuitOpen, match="the circuit of t is half open") as caught:
            circuit.try_acquire()
        assert caught.value.probing
        assert caught.value.retry_after_s == pytest.approx(soon)


@in_virtual_time
async def test_a_rejection_while_probes_are_out_says_when_it_will_be_known_at_the_latest(clock: VirtualClock) -> None:
    for half_open_s, known in ((30.0, 20.0), (None, None)):
        circuit = await opened(clock, probes=1, half_open_s=half_open_s)
        circuit.try_acquire()
        await asyncio.sleep(10.0)
        with pytest.raises(CircuitOpen) as caught:
            circuit.try_acquire()
        assert caught.value.known_in_s == (None if known is None else pytest.approx(known))
    fail(other := of(clock), 4)
    with pytest.raises(CircuitOpen) as caught:
        other.try_acquire()
    assert caught.value.known_in_s is None


@in_virtual_time
async def test_a_permit_is_settled_once(clock: VirtualClock) -> None:
    circuit = await opened(clock)
    probe = circuit.try_acquire()
    for _ in range(5):
        circuit.settle(probe, True)
    assert circuit.state is State.HALF_OPEN
    others = [circuit.try_acquire() for _ in range(3)]
    assert len(others) == 3
    with pytest.raises(CircuitOpen):
        circuit.try_acquire()


@in_virtual_time
async def test_a_slow_probe_has_failed(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=1, slow_after_s=2.0)
    await slow(circuit, 2.1)
    assert circuit.state is State.OPEN
    await asyncio.sleep(circuit.open_for_s)
    await slow(circuit, 2.0)
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_probes_that_do_not_come_back_in_time_open_it_again(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=1, half_open_s=30.0)
    probe = circuit.try_acquire()
    await asyncio.sleep(29.5)
    with pytest.raises(CircuitOpen, match="half open"):
        circuit.try_acquire()
    await asyncio.sleep(0.5)
    with pytest.raises(CircuitOpen, match="is open"):
        circuit.try_acquire()
    assert 20.0 <= circuit.open_for_s <= 22.0
    circuit.settle(probe, False)  # too late
    assert circuit.state is State.OPEN


@in_virtual_time
async def test_without_half_open_s_probes_may_take_as_long_as_they_take(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=1, half_open_s=None)
    probe = circuit.try_acquire()
    await asyncio.sleep(1e6)
    with pytest.raises(CircuitOpen, match="half open"):
        circuit.try_acquire()
    circuit.settle(probe, False)
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_when_it_closes_the_window_is_empty_and_whoever_wants_to_know_is_told(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=1)
    told: list[State] = []
    circuit.on_close.append(lambda: told.append(circuit.state))
    succeed(circuit, 1)
    assert told == [State.CLOSED]
    assert circuit.gauges()["breaker_window_calls"] == 0
    fail(circuit, 3)
    assert circuit.state is State.CLOSED


# -- by hand --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_metrics_only_counts_and_never_opens(clock: VirtualClock) -> None:
    circuit = of(clock, mode="metrics_only", consecutive_failures=2)
    fail(circuit, 10)
    assert circuit.state is State.CLOSED
    assert circuit.gauges()["breaker_window_failures"] == 10
    assert circuit.open_for_s == 0.0


@in_virtual_time
async def test_disabled_lets_everything_through_and_counts_nothing(clock: VirtualClock) -> None:
    circuit = of(clock, mode="disabled")
    fail(circuit, 10)
    assert circuit.gauges()["breaker_window_calls"] == 0
    circuit.mode = "auto"
    assert circuit.state is State.CLOSED


@in_virtual_time
async def test_forced_open_lets_nothing_through_and_promises_nothing(clock: VirtualClock) -> None:
    circuit = of(clock, mode="forced_open")
    with pytest.raises(CircuitOpen, match=r"policy\.breaker\.mode=forced_open") as caught:
        circuit.try_acquire()
    assert caught.value.retry_after_s is None
    assert circuit.rejections == 1
    assert circuit.open_for_s == float("inf")
    circuit.mode = "auto"
    circuit.try_acquire()


@in_virtual_time
async def test_an_open_circuit_lets_through_when_it_is_disabled(clock: VirtualClock) -> None:
    circuit = of(clock)
    fail(circuit, 4)
    circuit.mode = "disabled"
    assert circuit.open_for_s == 0.0
    fail(circuit, 4)
    circuit.mode = "auto"
    assert 10.0 <= circuit.open_for_s <= 11.0


@pytest.mark.parametrize("mode", ["disabled", "metrics_only", "forced_open"])
def test_a_change_of_mode_loses_no_place_for_a_probe(mode: Any) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        circuit = await opened(clock, probes=1)
        probe = circuit.try_acquire()
        circuit.mode = mode
        others = [] if mode == "forced_open" else [circuit.try_acquire() for _ in range(3)]
        circuit.settle(probe, True)
        circuit.mode = "auto"
        assert circuit.state is State.HALF_OPEN
        for other in others:
            circuit.settle(other, True)
        assert circuit.state is State.HALF_OPEN
        circuit.try_acquire()
        with pytest.raises(CircuitOpen):
            circuit.try_acquire()

    scenario()


@in_virtual_time
async def test_reset_closes_it_and_forgets_how_often_it_had_opened(clock: VirtualClock) -> None:
    circuit = await opened(clock, probes=1)
    fail(circuit, 1)
    assert circuit.open_for_s > 20.0
    circuit.reset()
    assert circuit.state is State.CLOSED
    fail(circuit, 4)
    assert 10.0 <= circuit.open_for_s <= 11.0


# -- in the chain ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_hint_of_a_failure_and_of_a_throttle_is_kept(clock: VirtualClock) -> None:
    for error in (ServerFailed("down", retry_after_s=100.0), Throttled("slow down", retry_after_s=100.0)):
        made_branch = branch(clock, PolicySpec(breaker=SPEC))
        stage = chain([breaker], made_branch, Scripted(error, ServerFailed("down")))
        for _ in range(5):
            with pytest.raises((ServerFailed, Throttled)):
                await stage(request(), context(clock))
            if isinstance(error, ServerFailed) and made_branch.resources.items("breaker"):
                (circuit,) = made_branch.resources.items("breaker").values()
                if circuit.state is State.OPEN:
                    break
        (circuit,) = made_branch.resources.items("breaker").values()
        assert circuit.open_for_s == pytest.approx(100.0)


@in_virtual_time
async def test_a_stream_that_is_left_says_nothing_and_one_that_ends_is_a_success(clock: VirtualClock) -> None:
    made_branch = branch(clock, PolicySpec(breaker=SPEC))
    stage = chain([breaker], made_branch, Scripted(0.0))
    (circuit,) = made_branch.resources.items("breaker").values()
    for _ in range(2):
        result = await stage(request(), context(clock, stream=True))
        assert result.stream is not None
        await result.stream.aclose()
    assert circuit.gauges()["breaker_window_calls"] == 0
    result = await stage(request(), context(clock, stream=True))
    assert result.stream is not None
    async for _ in result.stream:
        assert circuit.gauges()["breaker_window_calls"] == 0
    assert circuit.gauges()["breaker_window_calls"] == 1


@in_virtual_time
async def test_the_layer_says_its_settings_and_is_not_there_when_off(clock: VirtualClock) -> None:
    def settings_of(**fields: Any) -> str | None:
        layer = breaker.layer(branch(clock, PolicySpec(breaker=BreakerSpec(**fields))))
        return layer.settings if layer else None

    usual = "opens at 50% of ≥10 calls for 5 s, 2 probes, on_open=wait"
    assert settings_of() == usual
    assert settings_of(slow_after_s=3.0) == f"{usual}, slow after 3 s"
    assert settings_of(mode="metrics_only", slow_after_s=3.0) == "mode=metrics_only"
    assert settings_of(enabled=False) is None


@in_virtual_time
async def test_each_endpoint_has_a_circuit_of_its_own_and_goes_by_its_address(clock: VirtualClock) -> None:
    provider = RemoteProviderSpec(kind="remote", name="p", base_url="http://a/v1", endpoints=("http://b/v1",))
    here = branch(clock, PolicySpec(), provider=provider)
    first, second = breakers_of(here)
    assert (first.name, second.name) == ("t at http://a/v1", "t at http://b/v1")
    assert breakers_of(here) == (first, second)
    (alone,) = breakers_of(branch(clock, PolicySpec()))
    assert alone.name == "t"


@in_virtual_time
async def test_a_model_in_this_process_has_none_and_neither_has_a_policy_without(clock: VirtualClock) -> None:
    local = LocalProviderSpec(kind="local", default_model="m")
    assert breakers_of(branch(clock, PolicySpec(), provider=local)) == ()
    off = branch(clock, PolicySpec(breaker=BreakerSpec(enabled=False), concurrency=ConcurrencySpec(enabled=True)))
    assert breakers_of(off) == ()
    assert concurrency.layer(off) is not None


# -- against a naive model ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Call:
    """One call, as the model sees it."""

    permit: Permit
    era: int
    probe: bool
    started: float
    settled: bool = False
    answered: bool = False
    found_slow: int | None = None
    """Where it stands in the model's list of calls."""


class AgainstANaiveBreaker(RuleBasedStateMachine):
    """The circuit against a list of all calls since its last change of state, counted from scratch at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.rng = Rng(1)
        self.state, self.era, self.opened_in_a_row = "closed", 0, 0
        self.open_until = self.hint_until = 0.0
        self.half_open_until = 0.0
        self.samples: list[list[Any]] = []
        self.row = 0
        self.successes = self.failures = 0
        self.calls: list[Call] = []

    @initialize(
        window=st.integers(3, 6),
        window_s=st.sampled_from([None, 7.0]),
        consecutive=st.sampled_from([None, 2]),
        slow_after=st.sampled_from([None, 2.0]),
        probes=st.integers(1, 3),
        half_open=st.sampled_from([None, 8.0]),
    )
    def begin(
        self,
        window: int,
        window_s: float | None,
        consecutive: int | None,
        slow_after: float | None,
        probes: int,
        half_open: float | None,
    ) -> None:
        self.spec = BreakerSpec(
            window=window, window_s=window_s, min_calls=3, consecutive_failures=consecutive, slow_after_s=slow_after,
            slow_threshold=0.6, open_s=5.0, max_open_s=12.0, probes=probes, half_open_s=half_open,
        )  # fmt: skip
        self.circuit = Breaker("t", self.spec, self.clock, Rng(1))

    # -- what may happen ---------------------------------------------------------------------------------------

    @rule()
    def call(self) -> None:
        now = self.clock.monotonic()
        self._find_slow(now)
        if self.state == "half_open" and now >= self.half_open_until:
            self._open(now)
        if self.state == "open" and now >= self.open_until:
            self._enter("half_open")
            self.half_open_until = now + (self.spec.half_open_s or float("inf"))
        if self.state == "open" or (self.state == "half_open" and len(self._probes()) >= self.spec.probes):
            with pytest.raises(CircuitOpen) as caught:
                self.circuit.try_acquire()
            if self.state == "open":
                assert caught.value.retry_after_s == pytest.approx(self.open_until - now)
        else:
            self.calls.append(Call(self.circuit.try_acquire(), self.era, self.state == "half_open", now))

    @rule(data=st.data(), failed=st.sampled_from([True, True, False, None]), hint=st.sampled_from([None, None, 9.0]))
    def end(self, data: st.DataObject, failed: bool | None, hint: float | None) -> None:
        if not self.calls:
            return
        call = data.draw(st.sampled_from(self.calls))
        self.circuit.settle(call.permit, failed, hint)
        now = self.clock.monotonic()
        first, call.settled = not call.settled, True
        if not first or call.era != self.era:
            return
        if hint is not None:
            self.hint_until = max(self.hint_until, now + hint)
        if failed is None:
            return
        limit = self.spec.slow_after_s
        slow = limit is not None and not call.answered and now - call.started > limit
        if self.state == "half_open":
            self._probed(now, failed or slow)
            return
        self.row = self.row + 1 if failed else 0
        if call.found_slow is None:
            self.samples.append([now, failed, slow])
        else:
            self.samples[call.found_slow][1] |= failed
        self._judge(now, failed, slow)

    @rule(data=st.data())
    def first_chunk(self, data: st.DataObject) -> None:
        under_way = [call for call in self.calls if not call.settled]
        if under_way and self.spec.slow_after_s is not None:
            call = data.draw(st.sampled_from(under_way))
            self.circuit.answered(call.permit)
            call.answered |= self.clock.monotonic() - call.started <= self.spec.slow_after_s

    @rule(seconds=st.sampled_from([0.5, 2.5, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    # -- the model ---------------------------------------------------------------------------------------------

    def _probes(self) -> list[Call]:
        return [call for call in self.calls if call.probe and not call.settled and call.era == self.era]

    def _find_slow(self, now: float) -> None:
        limit = self.spec.slow_after_s
        for call in self.calls:
            over = limit is not None and not call.answered and now - call.started > limit
            fresh = not call.settled and call.era == self.era and call.found_slow is None
            if over and fresh and self.state == "closed":
                call.found_slow = len(self.samples)
                self.samples.append([now, False, True])
                self._judge(now, False, True)

    def _window(self, now: float) -> list[list[Any]]:
        recent = self.samples[-self.spec.window :]
        last = self.samples[-1][0]
        return [each for each in recent if self.spec.window_s is None or last - each[0] <= self.spec.window_s]

    def _judge(self, now: float, failed: bool, slow: bool) -> None:
        spec, window = self.spec, self._window(now)
        enough = len(window) >= spec.min_calls
        share = [sum(each[place] for each in window) / len(window) for place in (1, 2)]
        if (
            (failed and spec.consecutive_failures is not None and self.row >= spec.consecutive_failures)
            or (failed and enough and share[0] >= spec.failure_threshold)
            or (slow and enough and share[1] >= spec.slow_threshold)
        ):
            self._open(now)

    def _probed(self, now: float, failed: bool) -> None:
        self.failures += failed
        self.successes += not failed
        if 2 * self.successes > self.spec.probes:
            self.opened_in_a_row = 0
            self._enter("closed")
        elif 2 * (self.spec.probes - self.failures) <= self.spec.probes:
            self._open(now)

    def _open(self, now: float) -> None:
        self.opened_in_a_row += 1
        pause = min(12.0, 5.0 * 2 ** (self.opened_in_a_row - 1)) * self.rng.uniform(1.0, 1.1)
        self.open_until = max(now + pause, self.hint_until)
        self._enter("open")

    def _enter(self, state: str) -> None:
        self.state = state
        self.era += 1
        self.samples, self.row, self.successes, self.failures = [], 0, 0, 0

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.state.value == self.state
            assert len(self._probes()) <= self.spec.probes
            window = self._window(self.clock.monotonic()) if self.samples else []
            gauges = self.circuit.gauges()
            assert gauges["breaker_window_calls"] == len(window)
            assert gauges["breaker_window_failures"] == sum(each[1] for each in window)
            assert gauges["breaker_window_slow"] == sum(each[2] for each in window)

    def teardown(self) -> None:
        self.loop.close()


AgainstANaiveBreaker.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
TestAgainstANaiveBreaker = pytest.mark.slow(AgainstANaiveBreaker.TestCase)


@in_virtual_time
async def test_who_waits_for_probes_goes_on_when_these_say_nothing(clock: VirtualClock) -> None:
    executor = Scripted(*[ServerFailed("down")] * 4, 1000.0, 1000.0, 1000.0, 0.0)
    made_branch = branch(clock, PolicySpec(breaker=SPEC))
    stage = waiting(chain([breaker], made_branch, executor), made_branch)
    for _ in range(4):
        with pytest.raises(ServerFailed):
            await stage(request(), context(clock))
    await asyncio.sleep(12.0)
    probes = [asyncio.create_task(stage(request(), context(clock))) for _ in range(3)]
    await asyncio.sleep(1.0)
    patient = [asyncio.create_task(stage(request(), context(clock))) for _ in range(5)]
    await asyncio.sleep(1.0)
    assert executor.calls == 7
    for probe in probes:
        probe.cancel()
    results = await asyncio.gather(*patient)
    assert all(result.ok for result in results)
    assert clock.monotonic() == pytest.approx(14.0)
