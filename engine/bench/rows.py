"""The seed's rows: the architecture and size of each, its measured call, and the claim about it.

Models are built from their config at full size with fixed random weights: speed and memory do not depend on the values.
Sizes: the checkpoints' published config.json, or transformers' defaults where they equal that checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PROMPT_TOKENS = 16
NEW_TOKENS = 48
WHISPER_TOKENS = 100
"""Tokens of 30 s of speech: 150 words a minute are 75 words, about 100 tokens."""
AUDIO_S = 30
RATE = 16_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    name: str
    what: str
    """The measure, in words."""
    claim: dict[str, float]
    """The old system's claims for a CPU, by the names of `measures`; empty: none."""
    build: Callable[[], Any] | None
    """Makes the model; None: too large for a machine of this class, so it is only planned."""
    call: str
    """decode: `generate`; forward: one pass."""
    inputs: Callable[[Any], dict[str, Any]] | None = None
    """Makes the inputs of one call."""
    prepare: Callable[[], Any] | None = None
    """Preprocessing of one query, timed on its own."""
    new_tokens: int = NEW_TOKENS
    rows: int = 1
    """Sentences in a call."""
    seconds: float = 0.0
    """Seconds of audio in a call."""
    note: str = ""
    variants: tuple[str, ...] = field(default=("torch bf16", "torch int8_dynamic"))
    """The contenders: a runtime and its precision or quantization; `genai` is OpenVINO with continuous batching."""


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config())


def _opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(OPTConfig())


def _t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(d_model=256, d_kv=64, d_ff=1024, num_layers=4, num_heads=4, decoder_start_token_id=0)
    )


def _llava() -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, Qwen2Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=384,
        patch_size=14, vision_use_head=False,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=152000, tie_word_embeddings=True,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=151646, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig())


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from engine.runtimes.pipelines.whisper_suppress import quickened

    sizes = {"encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6, "decoder_attention_heads": 6}
    config = WhisperConfig(d_model=384, encoder_ffn_dim=1536, decoder_ffn_dim=1536, **sizes)
    return quickened(WhisperForConditionalGeneration(config))


def _wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    return Wav2Vec2ForCTC(
        Wav2Vec2Config(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
    )


def _bert_tiny() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512))


def _minilm() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536))


def _clap() -> Any:
    from transformers import ClapConfig, ClapModel

    return ClapModel(ClapConfig())


def _xclip() -> Any:
    from transformers import XCLIPConfig, XCLIPModel

    return XCLIPModel(XCLIPConfig())


def _words(count: int, rows: int = 1) -> Callable[[Any], dict[str, Any]]:
    def make(model: Any) -> dict[str, Any]:
        import torch

        ids = torch.randint(5, 1000, (rows, count))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return make


def _picture() -> Any:
    from PIL import Image

    return Image.effect_noise((1280, 960), 60).convert("RGB")


def _see_llava() -> Any:
    from transformers import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(size={"height": 384, "width": 384})
    return processor(_PICTURE[0], return_tensors="pt")["pixel_values"]


def _see_clip() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil()(_PICTURE[0], return_tensors="pt")["pixel_values"]


def _llava_inputs(model: Any) -> dict[str, Any]:
    import torch

    ids = torch.cat([torch.full((1, (384 // 14) ** 2), 151646), torch.randint(5, 1000, (1, PROMPT_TOKENS))], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": _see_llava().to(model.dtype)}


def _clip_inputs(model: Any) -> dict[str, Any]:
    import torch

    ids = torch.randint(5, 1000, (1, 12))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": _see_clip().to(model.dtype)}


def _hear_whisper() -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor()(_noise(), sampling_rate=RATE, return_tensors="pt")["input_features"]


def _noise() -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal(AUDIO_S * RATE).astype("float32") * 0.1


def _whisper_inputs(model: Any) -> dict[str, Any]:
    return {"input_features": _hear_whisper().to(model.dtype)}


def _wave_inputs(model: Any) -> dict[str, Any]:
    import torch

    return {"input_values": torch.from_numpy(_noise())[None].to(model.dtype)}


def _clap_inputs(model: Any) -> dict[str, Any]:
    import torch

    ids = torch.randint(5, 1000, (1, 12))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.randn(1, 1, 1001, 64, dtype=model.dtype),
        "is_longer": torch.tensor([[False]]),
    }


def _xclip_inputs(model: Any) -> dict[str, Any]:
    import torch

    ids = torch.randint(5, 1000, (1, 12))
    frames = torch.randn(1, 8, 3, 224, 224, dtype=model.dtype)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": frames}


class _Once:
    """Makes an object on its first use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    def __getitem__(self, place: int) -> Any:
        if not self._made:
            self._made.append(self._make())
        return self._made[place]


_PICTURE = _Once(_picture)
_BY_PARTS = ("openvino int8", "openvino bf16", "torch bf16", "torch int8_dynamic")
_GENERATE = ("genai int8", "genai bf16", "torch bf16", "torch int8_dynamic")
_FORWARD = ("openvino int8_full", "openvino bf16", "torch bf16", "torch int8_dynamic")

ROWS = (
    Row(
        "opt-125m", "text generation, 48 tokens", {"tokens_s": 38, "latency_s": 0.40, "memory_mb": 275},
        _opt, "decode", _words(PROMPT_TOKENS), variants=_GENERATE,
    ),
    Row(
        "gpt2", "text generation, 48 tokens", {"tokens_s": 20, "latency_s": 0.85, "memory_mb": 510},
        _gpt2, "decode", _words(PROMPT_TOKENS), variants=_GENERATE,
    ),
    Row(
        "t5-efficient-tiny", "text to text, 48 tokens", {"tokens_s": 32, "latency_s": 0.50, "memory_mb": 90},
        _t5, "decode", _words(PROMPT_TOKENS), variants=_BY_PARTS,
    ),
    Row(
        "llava", "an image and 16 tokens, then 48 tokens",
        {"tokens_s": 35, "preprocessing_s": 0.80, "memory_mb": 2550},
        _llava, "decode", _llava_inputs, _see_llava, variants=("openvino int4", *_BY_PARTS),
        note="LLaVA Interleave 0.5B: SigLIP-400M and Qwen2-0.5B",
    ),
    Row("clip", "one image and one text", {"query_ms": 310, "memory_mb": 440}, _clip, "forward", _clip_inputs,
        _see_clip, variants=_FORWARD, note="ViT-B/32; the query includes the picture's preprocessing"),
    Row("whisper-tiny", "30 s of speech, 100 tokens", {"realtime": 14, "latency_s": 2.4, "memory_mb": 175},
        _whisper, "decode", _whisper_inputs, _hear_whisper, new_tokens=WHISPER_TOKENS, seconds=AUDIO_S,
        variants=_BY_PARTS),
    Row("wav2vec2-tiny", "30 s of speech", {"realtime": 20, "latency_s": 1.60, "memory_mb": 62},
        _wav2vec2, "forward", _wave_inputs, seconds=AUDIO_S, variants=_FORWARD,
        note="6 layers, 384 wide: 16 million parameters, for a checkpoint of the claim's 62 MB is not named"),
    Row("bert-tiny", "32 sentences of 128 tokens", {"sentence_ms": 4.3, "memory_mb": 24},
        _bert_tiny, "forward", _words(128, 32), rows=32, variants=_FORWARD),
    Row("sentence-embeddings", "32 sentences of 16 tokens", {"sentence_ms": 5.0, "memory_mb": 100},
        _minilm, "forward", _words(16, 32), rows=32, variants=_FORWARD, note="all-MiniLM-L6-v2's architecture"),
    Row("clap", "10 s of audio and one text", {}, _clap, "forward", _clap_inputs, seconds=10, variants=("torch bf16",),
        note="nothing was claimed"),
    Row("xclip", "8 frames and one text", {}, _xclip, "forward", _xclip_inputs, variants=("torch bf16",),
        note="ViT-B/32; nothing was claimed"),
    Row("llava-next", "not measured", {}, None, "decode", variants=(),
        note="not built: 7 billion parameters, about 14 GiB as bfloat16; nothing was claimed"),
)  # fmt: skip
