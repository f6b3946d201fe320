"""Whisper's suppressed tokens."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from engine.runtimes.pipelines.whisper_suppress import quickened  # noqa: E402

SIZES = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}


def whisper(**told: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=64, num_mel_bins=8, max_source_positions=50,
        pad_token_id=1, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, **SIZES,
    )  # fmt: skip
    made = transformers.WhisperForConditionalGeneration(config).eval()
    made.generation_config.update(**told)
    return made


@pytest.mark.parametrize(
    "told",
    [
        {"suppress_tokens": [5, 9, 40, 63], "begin_suppress_tokens": [7, 8]},
        {"suppress_tokens": [5, 64, 1000], "begin_suppress_tokens": [2, 999]},
        {"suppress_tokens": [], "begin_suppress_tokens": []},
        {"suppress_tokens": list(range(10, 64)), "begin_suppress_tokens": None},
    ],
)
def test_the_tokens_are_those_of_transformers(told: dict[str, Any]) -> None:
    sound = torch.randn(2, 8, 100)
    asked = {"max_new_tokens": 12, "do_sample": False}
    wanted = whisper(**told).generate(sound, **asked)
    found = quickened(whisper(**told)).generate(sound, **asked)
    assert found.equal(wanted)
    assert not set(told["suppress_tokens"]) & set(found[:, 1:].flatten().tolist())
