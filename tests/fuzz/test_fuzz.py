"""The short set of fuzzing cases, with fixed seeds; `python -m tests.fuzz` runs the long one."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.cases import KINDS

CASES = 400


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_value_anywhere_is_an_answer_or_a_typed_error(kind: str) -> None:
    for seed in range(CASES):
        KINDS[kind](random.Random(seed))
