"""Which rows there are."""

from __future__ import annotations

import pytest

from engine.core.errors import ConfigError
from engine.matrix.catalog import entries, gone
from engine.matrix.names import MAPPED, NAMED

pytestmark = pytest.mark.slow


def test_every_promised_name_has_a_row() -> None:
    names = {entry.name for entry in entries()}
    assert set(NAMED) <= names
    assert set(MAPPED) <= names
    assert len(MAPPED) == 47


def test_every_type_of_the_installed_transformers_has_a_row() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert set(CONFIG_MAPPING_NAMES) <= {entry.name for entry in entries()}


def test_a_pattern_chooses_by_name() -> None:
    assert [entry.name for entry in entries(["gpt_neo*"])] == ["gpt_neo", "gpt_neox", "gpt_neox_japanese"]


def test_a_pattern_may_name_a_group() -> None:
    assert {entry.name for entry in entries(["mapped"])} == set(MAPPED)


def test_a_pattern_that_matches_nothing_offers_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"matrix berd: .*bert"):
        entries(["berd"])


def test_a_mapped_model_has_its_checkpoint() -> None:
    [entry] = entries(["whisper"])
    assert entry.checkpoint == "openai/whisper-small"


@pytest.mark.parametrize("name", ["deta", "transfo-xl", "code_llama"])
def test_a_name_that_left_transformers_says_so(name: str) -> None:
    assert gone(name)


def test_a_type_that_is_there_is_not_gone() -> None:
    assert gone("bert") == ""
