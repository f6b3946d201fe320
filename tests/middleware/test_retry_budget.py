"""The retry budget: what trying again costs a target, and what gives it back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core.errors import FAILURES
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop
from engine.middleware.retry_budget import RetryBudget, budget_of
from engine.schemas.policy import BudgetSpec, PolicySpec
from tests.middleware.chain import EXAMPLES, branch, in_virtual_time


def made(clock: VirtualClock, **fields: Any) -> RetryBudget:
    return RetryBudget(BudgetSpec(**{"capacity": 30, "refill_per_s": 2, **fields}), clock)


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_a_throttle_costs_less_than_a_failure(kind: str) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        budget = made(clock, failure_cost=14, throttle_cost=5)
        assert budget.cost(FAILURES[kind]("no")) == (5 if kind in ("throttled", "overloaded") else 14)

    scenario()


@in_virtual_time
async def test_it_gives_what_it_has_and_no_more_and_fills_up_again(clock: VirtualClock) -> None:
    budget = made(clock)
    assert [budget.try_take(14) for _ in range(3)] == [True, True, False]
    assert budget.gauges() == {"retry_budget_tokens": 2, "retry_budget_refused": 1}
    await asyncio.sleep(6.0)
    assert budget.gauges()["retry_budget_tokens"] == 14
    assert budget.try_take(14)
    await asyncio.sleep(60.0)
    assert budget.gauges()["retry_budget_tokens"] == 30


@in_virtual_time
async def test_what_is_given_back_never_overflows(clock: VirtualClock) -> None:
    budget = made(clock, refill_per_s=0)
    budget.try_take(14)
    budget.give_back(10)
    assert budget.level == 26
    budget.give_back(10)
    assert budget.level == 30


@in_virtual_time
async def test_a_reservation_waits_until_the_bucket_has_made_up_for_it(clock: VirtualClock) -> None:
    budget = made(clock)
    assert [budget.reserve(14) for _ in range(4)] == [0.0, 0.0, 6.0, 13.0]
    assert budget.refused == 2
    await asyncio.sleep(13.0)
    assert budget.gauges()["retry_budget_tokens"] == pytest.approx(0.0)


@in_virtual_time
async def test_there_is_no_wait_where_nothing_comes_back_or_failing_is_asked_for(clock: VirtualClock) -> None:
    for fields in ({"refill_per_s": 0}, {"on_empty": "fail"}):
        budget = made(clock, **fields)
        assert [budget.reserve(14) for _ in range(3)] == [0.0, 0.0, None]
        assert budget.level == 2


@in_virtual_time
async def test_a_target_has_one_budget_or_none(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec())
    assert budget_of(here) is budget_of(here)
    assert budget_of(here) is here.resources.items("budget")[("budget", "t")]
    assert budget_of(branch(clock, PolicySpec(budget=BudgetSpec(enabled=False)))) is None


class AgainstANaiveBudget(RuleBasedStateMachine):
    """The bucket against a level that is recomputed from the list of all that happened."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.events: list[tuple[float, float]] = []

    @initialize(refill=st.sampled_from([0.0, 0.5, 10.0]), on_empty=st.sampled_from(["wait", "fail"]))
    def begin(self, refill: float, on_empty: Any) -> None:
        self.spec = BudgetSpec(capacity=40.0, refill_per_s=refill, on_empty=on_empty)
        self.budget = RetryBudget(self.spec, self.clock)

    @rule(cost=st.sampled_from([0.0, 5.0, 14.0]))
    def take(self, cost: float) -> None:
        level = self._level()
        assert self.budget.try_take(cost) == (level >= cost)
        if level >= cost:
            self._note(-cost)

    @rule(cost=st.sampled_from([0.0, 5.0, 14.0]))
    def reserve(self, cost: float) -> None:
        level = self._level()
        wait = self.budget.reserve(cost)
        if level >= cost:
            assert wait == 0.0
        elif self.spec.on_empty == "fail" or self.spec.refill_per_s == 0:
            assert wait is None
            return
        else:
            assert wait == pytest.approx((cost - level) / self.spec.refill_per_s)
        self._note(-cost)

    @rule(tokens=st.sampled_from([1.0, 14.0]))
    def give_back(self, tokens: float) -> None:
        self.budget.give_back(tokens)
        self._note(tokens)

    @rule(seconds=st.sampled_from([0.5, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def _note(self, change: float) -> None:
        self.events.append((self.clock.monotonic(), change))

    def _level(self) -> float:
        level, at = 40.0, 0.0
        for when, change in [*self.events, (self.clock.monotonic(), 0.0)]:
            level = min(40.0, min(40.0, level + (when - at) * self.spec.refill_per_s) + change)
            at = when
        return level

    @invariant()
    def the_level_is_what_the_events_make_of_it(self) -> None:
        if hasattr(self, "budget"):
            assert self.budget.gauges()["retry_budget_tokens"] == pytest.approx(self._level())
            assert self.budget.level <= 40.0

    def teardown(self) -> None:
        self.loop.close()


AgainstANaiveBudget.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
TestAgainstANaiveBudget = pytest.mark.slow(AgainstANaiveBudget.TestCase)
