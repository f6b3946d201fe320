"""engine/telemetry/histogram.py, against numpy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.telemetry.histogram import ALPHA, Histogram

SAMPLES = {
    "lognormal": np.random.default_rng(1).lognormal(-2, 1.5, 20_000),
    "uniform": np.random.default_rng(2).uniform(0.001, 3, 20_000),
    "exponential": np.random.default_rng(3).exponential(0.2, 20_000),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("share", [0, 0.5, 0.9, 0.95, 0.99, 1])
def test_quantiles_are_within_one_percent_of_numpy(name: str, share: float) -> None:
    histogram = Histogram()
    for value in SAMPLES[name]:
        histogram.add(float(value))
    expected = float(np.percentile(SAMPLES[name], share * 100, method="lower"))
    assert histogram.quantile(share) == pytest.approx(expected, rel=ALPHA * 1.0001)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1), st.lists(st.floats(0, 1e6), min_size=1))
def test_merging_equals_counting_together(left: list[float], right: list[float]) -> None:
    both, one, other = Histogram(), Histogram(), Histogram()
    for value in left:
        both.add(value)
        one.add(value)
    for value in right:
        both.add(value)
        other.add(value)
    one.merge(other)
    for share in (0.0, 0.25, 0.5, 0.99, 1.0):
        assert one.quantile(share) == both.quantile(share)
    assert (one.count, one.min, one.max) == (both.count, both.min, both.max)


def test_nothing_counted_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().summary() is None


def test_zeros_are_counted() -> None:
    histogram = Histogram()
    for value in (0.0, 0.0, 0.0, 5.0):
        histogram.add(value)
    assert histogram.quantile(0.5) == 0.0
    assert histogram.quantile(1) == pytest.approx(5, rel=ALPHA)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e3)), st.lists(st.floats(1e-3, 1e3), min_size=1, unique=True))
def test_counts_below_bounds_are_right_to_two_percent(values: list[float], bounds: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    bounds = sorted(bounds)
    for bound, count in zip(bounds, histogram.cumulative(bounds), strict=True):
        assert sum(value <= bound for value in values) <= count
        assert count <= sum(value <= bound * 1.0205 for value in values)
