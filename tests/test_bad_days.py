"""Bad days of a provider of several sizes, lived through in virtual time: what the default policy takes home."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from engine import Engine, Request
from engine.config.compose import compose
from engine.core.virtual_time import VirtualClock, run
from engine.executors.simulated import SimulatedExecutor
from engine.simulation.counters import Counters

FAULT_S = (300, 600)
DAY_S = 1200


@dataclass
class Day:
    """What the provider counted at each second, and the longest wait of a request of low priority."""

    served_s: list[float]
    calls: list[int]
    refused: list[int]
    waited_s: float

    def goodput(self, places: float, from_s: int, to_s: int) -> float:
        """Time of served calls ÷ (places × time)."""
        return (self.served_s[to_s] - self.served_s[from_s]) / (places * (to_s - from_s))


def live(places: int, latency_s: float, faults: str = "[]") -> Day:
    words = [f"provider.capacity.concurrency={places}", f"provider.latency_s={latency_s}"]
    words += ["provider.latency_distribution=lognormal", f"policy.queue.concurrency={2 * places}"]
    spec = compose(["provider=simulated", f"provider.faults={faults}", *words]).spec
    day = Day([], [], [], 0.0)

    async def user(engine: Engine, priority: str) -> None:
        while True:
            body = {"messages": [{"role": "user", "content": "hello"}]}
            result = await engine.submit(Request("chat", body, priority=priority))
            assert result.ok
            if priority == "low":
                day.waited_s = max(day.waited_s, result.engine.total_s - result.engine.attempts[-1].duration_s)

    def note(counters: Counters) -> None:
        day.served_s.append(counters.served_s)
        day.calls.append(counters.calls)
        day.refused.append(sum(counters.refused.values()))

    async def inside(clock: VirtualClock) -> Day:
        async with Engine(spec, clock=clock) as engine:
            executor = engine.pipeline.target_chains[0].executor
            assert isinstance(executor, SimulatedExecutor)
            crowd = [*["high", "normal"] * (2 * places), *["low"] * places]
            users = [asyncio.create_task(user(engine, priority)) for priority in crowd]
            for _ in range(DAY_S + 1):
                note(executor.counters)
                await asyncio.sleep(1)
            for task in users:
                task.cancel()
            outcomes = await asyncio.gather(*users, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        return day

    return run(inside)


@pytest.mark.slow
@pytest.mark.parametrize(("places", "latency_s"), [(32, 1.0), (12, 2.0), (5, 1.0)])
def test_a_storm_of_refusals_costs_a_tenth_of_the_capacity_at_most(places: int, latency_s: float) -> None:
    day = live(places, latency_s)
    assert day.goodput(places, 120, DAY_S) >= 0.9
    assert (day.refused[-1] - day.refused[120]) / (day.calls[-1] - day.calls[120]) <= 0.03
    assert day.waited_s <= 2 * 60  # low priority: twice policy.queue.aging_s


@pytest.mark.slow
@pytest.mark.parametrize(("places", "latency_s"), [(32, 1.0), (64, 0.5)])
def test_a_brown_out_is_followed_down_and_up(places: int, latency_s: float) -> None:
    day = live(places, latency_s, f"[{{kind: brownout, share: 0.25, from_s: {FAULT_S[0]}, to_s: {FAULT_S[1]}}}]")
    assert day.goodput(places / 4, FAULT_S[0] + 60, FAULT_S[1]) >= 0.9
    assert day.goodput(places, FAULT_S[1] + 60, DAY_S) >= 0.9
    assert day.refused[-1] / day.calls[-1] <= 0.03
    back_s = next(s for s in range(FAULT_S[1], DAY_S) if day.goodput(places, s, s + 10) >= 0.9) - FAULT_S[1]
    assert back_s <= 2 * 5  # two of policy.breaker.open_s
