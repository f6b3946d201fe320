"""How far two sets of outputs are apart."""

from __future__ import annotations

import math

import pytest
import torch

from engine.matrix.measure.outputs import finite, leaves, relative_error


def test_the_error_is_relative_to_the_largest_value_of_its_output() -> None:
    wanted, found = {"logits": torch.tensor([1.0, -4.0])}, {"logits": torch.tensor([1.0, -4.2])}
    assert relative_error(wanted, found) == pytest.approx(0.05)


def test_the_worst_output_counts() -> None:
    wanted = {"one": torch.ones(2), "other": torch.ones(2)}
    assert relative_error(wanted, {"one": torch.ones(2), "other": torch.full((2,), 1.5)}) == pytest.approx(0.5)


def test_whole_numbers_are_equal_or_not() -> None:
    assert relative_error({"ids": torch.tensor([1, 2])}, {"ids": torch.tensor([1, 2])}) == 0
    assert relative_error({"ids": torch.tensor([1, 2])}, {"ids": torch.tensor([1, 3])}) == 1


def test_a_nan_where_a_number_was_is_no_match() -> None:
    assert math.isinf(relative_error({"out": torch.ones(2)}, {"out": torch.tensor([1.0, math.nan])}))


def test_equal_infinities_match() -> None:
    scores = torch.tensor([-math.inf, 1.0])
    assert relative_error({"scores": scores}, {"scores": scores.clone()}) == 0


def test_a_missing_output_is_named() -> None:
    with pytest.raises(ValueError, match="the output logits is missing"):
        relative_error({"logits": torch.ones(1)}, {})


def test_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"\[2\], expected \[3\]"):
        relative_error({"logits": torch.ones(3)}, {"logits": torch.ones(2)})


def test_leaves_have_dotted_names_and_leave_out_the_cache() -> None:
    output = {"logits": torch.ones(1), "hidden": (torch.ones(1), [torch.zeros(1)]), "past_key_values": torch.ones(1)}
    assert list(leaves(output)) == ["logits", "hidden.0", "hidden.1.0"]


def test_a_nan_is_not_finite_and_an_infinite_score_is() -> None:
    assert not finite({"out": torch.tensor([math.nan])})
    assert finite({"out": torch.tensor([-math.inf])})
