"""Rows that are not model types: the shapes of checkpoints that were promised by name, and models assembled here.

Widths and heads are those of the checkpoint; depth and vocabulary are cut as everywhere.
"""

from __future__ import annotations

from typing import Any

from engine.matrix.build import assembled
from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import floats, ints

_WIDTHS = "the widths of its checkpoint"


def _bert(width: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}


def _whisper(width: int, heads: int, bins: int) -> dict[str, Any]:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("attention_heads", heads), ("ffn_dim", 4 * width))
    }
    return {"d_model": width, "num_mel_bins": bins, "max_source_positions": 100, **sides}


CHECKPOINTS: dict[str, Override] = {
    "all-MiniLM-L6-v2": Override(
        _WIDTHS, model_type="bert", checkpoint="sentence-transformers/all-MiniLM-L6-v2", head="BertModel",
        level="shallow", config=_bert(384, 12),
    ),
    "gte-small": Override(
        _WIDTHS, model_type="bert", checkpoint="thenlper/gte-small", head="BertModel", level="shallow",
        config=_bert(384, 12),
    ),
    "bert-tiny": Override(
        _WIDTHS, model_type="bert", checkpoint="prajjwal1/bert-tiny", level="shallow", config=_bert(128, 2)
    ),
    "opt-125m": Override(
        _WIDTHS, model_type="opt", checkpoint="facebook/opt-125m", level="shallow",
        config={"hidden_size": 768, "ffn_dim": 3072, "num_attention_heads": 12, "word_embed_proj_dim": 768},
    ),
    "gpt2-small": Override(_WIDTHS, model_type="gpt2", checkpoint="openai-community/gpt2", level="shallow"),
    "t5-efficient-tiny": Override(
        _WIDTHS, model_type="t5", checkpoint="google/t5-efficient-tiny", level="shallow",
        config={"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_heads": 4},
    ),
    "whisper-tiny": Override(
        _WIDTHS + ", and shorter audio", model_type="whisper", checkpoint="openai/whisper-tiny", level="shallow",
        config=_whisper(384, 6, 80), inputs={"input_features": floats("B", 80, 200)},
    ),
    "whisper-large": Override(
        _WIDTHS + ", and shorter audio", model_type="whisper", checkpoint="openai/whisper-large-v3", level="shallow",
        config=_whisper(1280, 20, 128), inputs={"input_features": floats("B", 128, 200)},
    ),
    "wav2vec2-tiny": Override(
        _WIDTHS, model_type="wav2vec2", checkpoint="patrickvonplaten/wav2vec2_tiny_random", level="shallow",
        config={"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512},
    ),
    "clap-htsat-unfused": Override(
        _WIDTHS, model_type="clap", checkpoint="laion/clap-htsat-unfused", level="shallow",
        inputs={"input_features": floats("B", 1, 1001, 64)},
    ),
    "vision-t5": Override(
        "an image encoder with a T5 decoder, put together by VisionEncoderDecoderModel",
        model_type="vision-encoder-decoder", build=assembled.vision_t5,
    ),
    "stable-diffusion": Override(
        "one step of the pipeline: text encoder, denoising network and image decoder in one pass",
        checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5", model_type="clip_text_model",
        build=assembled.stable_diffusion,
        inputs={"input_ids": ints(400, "B", 12, low=3), "latents": floats("B", 4, 8, 8), "timestep": ints(1000, "B")},
    ),
}  # fmt: skip
