from __future__ import annotations

from statistics import mean, median

import pytest

from tests.simulation.steps import Desk


def test_the_same_seed_gives_the_same_day() -> None:
    def day(seed: int) -> list[object]:
        desk = Desk(
            seed,
            latency_s=1,
            latency_distribution="lognormal",
            output_distribution="exponential",
            faults=[{"kind": "server", "rate": 0.3}],
        )
        plans = [desk.serve() for _ in range(100)]
        return [(plan.first_s, plan.tokens, plan.failure is None) for plan in plans]

    assert day(1) == day(1)
    assert day(1) != day(2)


def test_a_lognormal_latency_has_its_median() -> None:
    desk = Desk(latency_s=2, latency_distribution="lognormal", latency_sigma=0.5)
    drawn = [desk.serve().first_s for _ in range(5000)]
    assert median(drawn) == pytest.approx(2, rel=0.05)
    assert sum(value > 2 * 2.276 for value in drawn) / 5000 == pytest.approx(0.05, abs=0.015)


def test_an_exponential_length_has_its_mean() -> None:
    desk = Desk(output_tokens=100, output_distribution="exponential")
    assert mean(desk.serve().tokens for _ in range(5000)) == pytest.approx(100, rel=0.05)


def test_no_answer_is_empty() -> None:
    desk = Desk(output_tokens=1, output_distribution="exponential")
    assert min(desk.serve().tokens for _ in range(500)) == 1


def test_the_requests_limit_cuts_the_answer() -> None:
    desk = Desk(output_tokens=8)
    plans = [desk.serve(output_limit=limit) for limit in (None, 3, 8)]
    assert [(plan.tokens, plan.finish_reason) for plan in plans] == [(8, "stop"), (3, "length"), (8, "stop")]


def test_a_request_that_does_not_fit_the_context_is_too_long() -> None:
    desk = Desk(context_length=100)
    assert [desk.refusal(input_tokens=60, output_limit=limit) for limit in (40, 41)] == [None, "too_long"]


def test_an_answer_that_was_begun_is_shorter_by_its_beginning() -> None:
    desk = Desk(output_tokens=8)
    plans = [desk.serve(begun=begun) for begun in (None, 0, 5, 20)]
    assert [(plan.begun, plan.tokens) for plan in plans] == [(0, 8), (0, 8), (5, 3), (20, 1)]


def test_a_provider_can_refuse_a_beginning() -> None:
    desk = Desk(prefill="refuse")
    assert [desk.refusal(begun=begun) for begun in (None, 0, 5)] == [None, "invalid_request", "invalid_request"]


def test_a_key_that_it_does_not_know_is_refused() -> None:
    desk = Desk(keys=2)
    assert [desk.refusal(key=key) for key in ("sim_2", "sim_3", None)] == [None, "auth", "auth"]


def test_a_provider_without_keys_takes_any() -> None:
    assert [Desk().refusal(key=key) for key in (None, "anything")] == [None, None]


def test_a_place_is_given_back_however_a_call_ends() -> None:
    desk = Desk(faults=[{"kind": "truncated", "to_s": 1}])
    desk.provider.leave(desk.ask(0), answered=False)
    desk.provider.leave(desk.ask(1), answered=False)
    desk.provider.leave(desk.ask(1), answered=True)
    assert desk.provider.counters.in_flight == 0
    assert desk.provider.counters.peak_in_flight == 1


def test_the_counters_say_what_became_of_every_call() -> None:
    desk = Desk(keys=2, output_tokens=8, faults=[{"kind": "server", "to_s": 1}, {"kind": "silent", "to_s": 2}])
    desk.serve(0, "sim_1")
    desk.serve(1, "sim_1")
    desk.serve(2, "sim_1")
    left = desk.ask(2, "sim_2")
    desk.provider.leave(left, answered=False)
    desk.serve(2, "nobody")
    desk.ask(2, "sim_2")
    counters = desk.provider.counters
    assert counters.refused == {"server": 1, "silent": 1, "auth": 1}
    assert (counters.calls, counters.served, counters.left, counters.in_flight) == (6, 1, 1, 1)
    assert counters.calls == counters.served + sum(counters.refused.values()) + counters.left + counters.in_flight
    assert (counters.input_tokens, counters.output_tokens) == (2, 8)
    first, second = counters.keys["sim_1"], counters.keys["sim_2"]
    assert (first.calls, first.served, first.refused, first.output_tokens) == (3, 1, 2, 8)
    assert (second.calls, second.served, second.refused, second.output_tokens) == (2, 0, 0, 0)


def test_the_time_that_was_served_adds_up() -> None:
    desk = Desk(latency_s=2)
    plan = desk.ask(0)
    desk.clock.now_s = plan.whole_s
    desk.provider.leave(plan, answered=True)
    desk.provider.leave(desk.ask(), answered=False)
    assert desk.provider.counters.served_s == 2
