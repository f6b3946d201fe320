"""Configurations become small and stay consistent."""

from __future__ import annotations

from typing import Any

import pytest

from engine.matrix.build.shrink import FIRST_SPECIAL, VOCABULARY, WIDTH, small_config

pytestmark = pytest.mark.slow


def small(name: str, level: Any = "small", **overrides: Any) -> Any:
    from transformers import CONFIG_MAPPING

    return small_config(CONFIG_MAPPING[name], level, overrides)


def test_widths_depth_and_vocabulary_are_cut() -> None:
    config = small("llama")
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (WIDTH, 2, VOCABULARY)


def test_the_shallow_level_keeps_the_widths() -> None:
    config = small("llama", "shallow")
    assert (config.hidden_size, config.num_hidden_layers) == (4096, 2)


def test_heads_for_keys_stay_equal_to_the_heads_where_they_were() -> None:
    config = small("deepseek_v32")
    assert config.num_key_value_heads == config.num_attention_heads


@pytest.mark.parametrize("name", ["jamba", "zamba2", "gemma3_text", "qwen3_next"])
def test_a_layer_of_each_kind_is_left(name: str) -> None:
    from transformers import CONFIG_MAPPING

    assert set(small(name).layer_types) == set(CONFIG_MAPPING[name]().layer_types)


def test_special_tokens_move_into_the_small_vocabulary_and_agree_in_all_parts() -> None:
    config = small("qwen2_vl")
    assert FIRST_SPECIAL <= config.image_token_id < VOCABULARY
    assert config.image_token_id != config.video_token_id


def test_an_override_is_set_last_by_its_dotted_path() -> None:
    from transformers import CONFIG_MAPPING

    config = small_config(CONFIG_MAPPING["llava"], "small", {"text_config.hidden_size": 32})
    assert config.text_config.hidden_size == 32
