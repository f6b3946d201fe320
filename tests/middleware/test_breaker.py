"""The breaker: opens on the endpoint's failures only, probes with few calls, is not confused by late results."""

import asyncio

import pytest
from chain import Scripted, branch, chain, context, in_virtual_time, request

from engine.clock import Rng
from engine.errors import FAILURES, CircuitOpen, InvalidRequest, ServerFailed
from engine.middleware import breaker
from engine.middleware.breaker import Breaker, State
from engine.virtual_time import VirtualClock
from schemas.policy import BreakerSpec, PolicySpec

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
