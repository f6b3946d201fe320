"""engine/tasks/finite.py: a number that JSON can't say is a failure, wherever a reply holds it."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Malformed
from engine.tasks import finite

BAD = st.sampled_from([float("nan"), float("inf"), float("-inf")])
FINITE = st.floats(-1e6, 1e6)


def packed(numbers: list[float]) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


@given(before=st.lists(FINITE, max_size=5), bad=BAD, after=st.lists(FINITE, max_size=5), as_text=st.booleans())
def test_a_vector_with_one_such_number_is_refused(
    before: list[float], bad: float, after: list[float], as_text: bool
) -> None:
    numbers = [*before, bad, *after]
    body = {"data": [{"embedding": [1.0]}, {"embedding": packed(numbers) if as_text else numbers}]}
    if as_text:  # a provider's may be of int8 or bits, in which any bytes are right
        finite.check_vectors(body)
    else:
        with pytest.raises(Malformed, match="not finite"):
            finite.check_vectors(body)
    with pytest.raises(Malformed, match="not finite"):
        finite.check(body)


@given(numbers=st.lists(FINITE | st.integers(-5, 5), min_size=1), as_text=st.booleans())
def test_finite_vectors_pass(numbers: list[float], as_text: bool) -> None:
    finite.check_vectors({"data": [{"embedding": packed(numbers) if as_text else numbers}]})


@pytest.mark.parametrize("hole", [None, "1", [], {}])
def test_a_vector_with_a_hole_is_refused(hole: Any) -> None:
    with pytest.raises(Malformed):
        finite.check_vectors({"data": [{"embedding": [0.5, hole, 0.25]}]})


@given(bad=BAD)
def test_scores_and_any_output_of_a_model_are_looked_through(bad: float) -> None:
    for body in ({"outputs": [{"label": "a", "score": bad}]}, {"outputs": bad}, {"a": {"b": [[0.1], [bad]]}}):
        with pytest.raises(Malformed):
            finite.check(body)
    with pytest.raises(Malformed):
        finite.check_scores([{"relevance_score": 1}, {"relevance_score": bad}])
    with pytest.raises(Malformed):
        finite.check_scores([{"relevance_score": None}])
