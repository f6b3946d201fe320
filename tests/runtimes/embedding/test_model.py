"""What a sentence encoder's folder says, and how texts are put into buckets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import SetupError
from engine.runtimes.embedding.model import SMALLEST_BUCKET_TOKENS, buckets, read


def folder(path: Path, pooling: dict[str, Any] | None, modules: list[str]) -> Path:
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 512}))
    listed = [{"type": f"sentence_transformers.models.{name}", "path": f"{i}_{name}"} for i, name in enumerate(modules)]
    (path / "modules.json").write_text(json.dumps(listed))
    if pooling is not None:
        (path / "1_Pooling").mkdir()
        (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


@pytest.mark.parametrize("kind", ["cls", "mean", "max"])
def test_pooling_is_read(tmp_path: Path, kind: str) -> None:
    name = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}[kind]
    found = read(folder(tmp_path, {name: True, "word_embedding_dimension": 8}, ["Transformer", "Pooling"]))
    assert (found.pooling, found.normalize, found.max_tokens) == (kind, False, 512)


def test_normalisation_is_read(tmp_path: Path) -> None:
    found = read(folder(tmp_path, {"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Normalize"]))
    assert found.normalize


def test_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="weightedmean"):
        read(folder(tmp_path, {"pooling_mode_weightedmean_tokens": True}, ["Transformer", "Pooling"]))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"config\.json"):
        read(tmp_path)


@given(st.lists(st.integers(1, 256), max_size=200), st.integers(64, 2000), st.integers(1, 8))
def test_every_text_is_in_one_bucket_that_keeps_its_bounds(lengths: list[int], budget: int, at_least: int) -> None:
    made = buckets(lengths, budget, at_least)
    assert sorted(row for bucket in made for row in bucket.rows) == list(range(len(lengths)))
    for bucket in made:
        assert bucket.length == max(lengths[row] for row in bucket.rows)
        assert len(bucket.rows) == 1 or len(bucket.rows) * bucket.length <= max(budget, SMALLEST_BUCKET_TOKENS)


@given(st.lists(st.integers(1, 256), min_size=1, max_size=200))
def test_padding_stays_small(lengths: list[int]) -> None:
    made = buckets(lengths, 1024)
    padded = sum(len(bucket.rows) * bucket.length for bucket in made)
    assert padded <= sum(lengths) * 1.25 + 4 * len(lengths)
