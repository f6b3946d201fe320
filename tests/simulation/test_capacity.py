from __future__ import annotations

import pytest

from tests.simulation.steps import Desk


def test_one_call_more_than_it_takes_at_once_is_refused_until_one_leaves() -> None:
    desk = Desk(capacity={"concurrency": 2})
    first = desk.ask()
    assert [desk.ask().failure is None, desk.ask().failure is None] == [True, False]
    desk.provider.leave(first, answered=False)
    assert desk.ask().failure is None


@pytest.mark.parametrize(("on_full", "status"), [("throttled", 429), ("overloaded", 503)])
def test_a_full_provider_refuses_as_it_was_told(on_full: str, status: int) -> None:
    desk = Desk(capacity={"concurrency": 1, "on_full": on_full, "hint": "retry_after", "retry_after_s": 3})
    desk.ask()
    failure = desk.ask().failure
    assert failure is not None
    assert (failure.kind, failure.status, failure.wait_s) == (on_full, status, 3)


def test_a_silent_call_holds_its_place() -> None:
    desk = Desk(capacity={"concurrency": 1}, faults=[{"kind": "silent", "to_s": 1}])
    desk.ask(0)
    assert desk.refusal(5) == "throttled"


def test_calls_beyond_full_speed_slow_down_in_proportion() -> None:
    desk = Desk(latency_s=1, token_s=0.1, capacity={"full_speed": 2})
    plans = [desk.ask() for _ in range(4)]
    assert [plan.first_s for plan in plans] == [1, 1, 1.5, 2]
    assert plans[3].token_s == pytest.approx(0.2)


def test_a_brownout_leaves_a_share_of_the_places() -> None:
    desk = Desk(capacity={"concurrency": 8}, faults=[{"kind": "brownout", "share": 0.25, "from_s": 10, "to_s": 20}])
    assert sum(desk.ask(10).failure is None for _ in range(8)) == 2
    assert sum(desk.ask(20).failure is None for _ in range(8)) == 6


def test_a_brownout_slows_down_what_is_beyond_the_share() -> None:
    desk = Desk(latency_s=1, capacity={"full_speed": 4}, faults=[{"kind": "brownout", "share": 0.25}])
    assert [desk.ask().first_s for _ in range(3)] == [1, 2, 3]


def test_requests_a_minute_may_come_at_once_and_then_at_their_rate() -> None:
    desk = Desk(capacity={"requests_per_min": 60, "burst_s": 5})
    assert [desk.refusal(0) for _ in range(6)] == [None] * 5 + ["throttled"]
    assert [desk.refusal(1), desk.refusal(1), desk.refusal(2.1)] == [None, "throttled", None]


def test_tokens_a_minute_count_prompt_and_answer() -> None:
    desk = Desk(output_tokens=8, capacity={"tokens_per_min": 60, "burst_s": 10})
    assert [desk.refusal(0), desk.refusal(0), desk.refusal(10)] == [None, "throttled", None]


def test_the_refusal_of_a_rate_says_exactly_when_to_come_back() -> None:
    desk = Desk(capacity={"requests_per_min": 60, "burst_s": 1})
    desk.serve(0)
    failure = desk.ask(0.4).failure
    assert failure is not None
    assert (failure.wait_s, failure.unit) == (pytest.approx(0.6), "requests")
    assert desk.refusal(0.4 + 0.6) is None


def test_the_refusal_names_the_rate_that_is_used_up() -> None:
    desk = Desk(output_tokens=8, capacity={"requests_per_min": 600, "tokens_per_min": 60, "burst_s": 10})
    desk.serve(0)
    failure = desk.ask(0).failure
    assert failure is not None
    assert (failure.wait_s, failure.unit) == (10, "tokens")


def test_each_key_has_rates_of_its_own() -> None:
    desk = Desk(keys=2, capacity={"requests_per_min": 1})
    assert [desk.refusal(0, key) for key in ("sim_1", "sim_1", "sim_2")] == [None, "throttled", None]


def test_a_call_larger_than_the_bucket_passes_when_it_is_full() -> None:
    desk = Desk(capacity={"tokens_per_min": 60, "burst_s": 10})
    assert [desk.refusal(0, input_tokens=500), desk.refusal(0), desk.refusal(600)] == [None, "throttled", None]


def test_a_brownout_also_slows_the_rates_down() -> None:
    desk = Desk(capacity={"requests_per_min": 60, "burst_s": 1}, faults=[{"kind": "brownout", "share": 0.5}])
    assert [desk.refusal(0), desk.refusal(1), desk.refusal(2)] == [None, "throttled", None]


def test_a_refused_call_costs_nothing() -> None:
    desk = Desk(capacity={"requests_per_min": 60, "burst_s": 1}, faults=[{"kind": "server", "to_s": 1}])
    assert [desk.refusal(0), desk.refusal(0), desk.refusal(1)] == ["server", "server", None]


def test_the_levels_say_what_is_left() -> None:
    desk = Desk(output_tokens=8, capacity={"requests_per_min": 60, "tokens_per_min": 600, "burst_s": 60})
    desk.serve(0)
    levels = desk.provider.levels("sim_1")
    assert (levels["requests"].limit, levels["requests"].remaining, levels["requests"].reset_s) == (60, 59, 1)
    assert (levels["tokens"].limit, levels["tokens"].remaining, levels["tokens"].reset_s) == (600, 590, 1)
