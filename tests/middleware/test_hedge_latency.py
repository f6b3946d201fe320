"""The pace of a target: percentiles of the latest calls, each kind of call by itself."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.middleware.hedge_latency import Latencies, Pace
from engine.schemas.policy import HedgeSpec


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 10), st.floats(0.01, 0.99))
def test_a_percentile_is_that_of_the_latest_by_the_nearest_rank(seen: list[float], size: int, share: float) -> None:
    latencies = Latencies(size)
    for seconds in seen:
        latencies.add(seconds)
    latest = sorted(seen[-size:])
    assert len(latencies) == len(latest)
    assert latencies.quantile(share) == latest[max(0, ceil(share * len(latest)) - 1)]


def test_the_percentile_counts_from_min_samples_on() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=0.5, min_samples=3))
    for _ in range(2):
        pace.add(("chat", False), 0.1)
    assert pace.delay_s(("chat", False)) == 2.0
    pace.add(("chat", False), 0.1)
    assert pace.delay_s(("chat", False)) == 0.1


def test_more_samples_than_are_usually_kept_can_be_asked_for() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=0.5, min_samples=1500))
    for _ in range(1500):
        pace.add(("chat", False), 0.1)
    assert pace.delay_s(("chat", False)) == 0.1


def test_an_answer_says_nothing_about_a_first_chunk() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=0.5, min_samples=1))
    pace.add(("chat", True), 0.1)
    assert pace.delay_s(("chat", True)) == 0.1
    assert pace.delay_s(("chat", False)) == pace.delay_s(("embedding", False)) == 2.0
    assert pace.gauges()["hedge_chat_stream_delay_s"] == pytest.approx(0.1)


def test_without_a_percentile_the_delay_is_fixed() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=None, min_samples=1))
    pace.add(("chat", False), 0.1)
    assert pace.delay_s(("chat", False)) == 2.0


def test_the_latest_thousand_are_kept_and_the_oldest_goes_first() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=0.5, min_samples=1))
    for seconds in [5.0] * 1000 + [1.0] * 500:
        pace.add(("chat", False), seconds)
    assert pace.delay_s(("chat", False)) == 1.0
    for seconds in [9.0] * 501:
        pace.add(("chat", False), seconds)
    assert pace.delay_s(("chat", False)) == 9.0


def test_the_gauges_say_what_was_hedged_and_when_the_next_one_would_be() -> None:
    pace = Pace(HedgeSpec(enabled=True, after_s=2.0, percentile=0.5, min_samples=1))
    pace.add(("chat", False), 0.25)
    pace.add(("embedding", True), 0.5)
    pace.hedges, pace.wins = 3, 1
    assert pace.gauges() == {
        "hedges_total": 3,
        "hedge_wins_total": 1,
        "hedge_chat_delay_s": 0.25,
        "hedge_embedding_stream_delay_s": 0.5,
    }
