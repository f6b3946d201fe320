"""Loads a Whisper model in CTranslate2's layout: `model.bin`, `config.json` and `tokenizer.json`.

Source of the file's form: CTranslate2's `specs/model_spec.py` (`_serialize`, binary version 6); of the names in it:
`converters/transformers.py` (`WhisperLoader`, `BartLoader`).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from engine.artifacts import settings

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's id → type; 5, bfloat16, is read as bits."""
_BFLOAT16 = 5
_VERSION = 6
_LAYER = (
    ("self_attention/layer_norm", "self_attn_layer_norm"),
    ("self_attention/linear_1", "self_attn.out_proj"),
    ("ffn/layer_norm", "final_layer_norm"),
    ("ffn/linear_0", "fc1"),
    ("ffn/linear_1", "fc2"),
)
_CROSS = (
    ("attention/layer_norm", "encoder_attn_layer_norm"),
    ("attention/linear_0", "encoder_attn.q_proj"),
    ("attention/linear_2", "encoder_attn.out_proj"),
)


def load(folder: Path, kind: torch.dtype) -> tuple[Any, Any, Any]:
    """Loads the model, its weights as `kind`, its tokenizer and its feature extractor. Raises ValueError or OSError."""
    weights = read(folder / "model.bin")
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>")
    config = _config(weights)
    model = WhisperForConditionalGeneration(config)
    missing, strange = model.load_state_dict(_renamed(weights, config), strict=False)
    lost = [name for name in missing if name != "proj_out.weight"]
    if lost or strange:
        raise ValueError(f"model.bin does not hold a whole Whisper: {', '.join((lost + strange)[:3])}")
    model.tie_weights()
    said = settings.read_object(folder / "config.json")
    model.generation_config = _generation(said, tokenizer, config)
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    return model.to(kind), tokenizer, extractor


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads the variables of a `model.bin`, by CTranslate2's names; 8-bit weights are decoded to numbers.
    Raises ValueError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found, spec = _variables(data)
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise ValueError(f"{path.name} is not in the form of CTranslate2: {error}") from error
    if spec != "WhisperSpec":
        raise ValueError(f"{path.name} holds a {spec}; of this layout only Whisper is read")
    for name in [name for name in found if name.endswith("/weight_scale")]:
        scale = found.pop(name)
        weight = name.removesuffix("_scale")
        found[weight] = found[weight].astype(np.float32) / scale.reshape(-1, *[1] * (found[weight].ndim - 1))
    return found


def _variables(data: mmap.mmap) -> tuple[dict[str, np.ndarray], str]:
    place = 0

    def take(form: str) -> Any:
        nonlocal place
        values = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return values[0] if len(values) == 1 else values

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return bytes(data[place - length : place - 1]).decode()

    version = take("I")
    if version != _VERSION:
        raise ValueError(f"version {version} of CTranslate2's layout can't be read, {_VERSION} can")
    spec = text()
    take("I")  # the revision of the spec
    found: dict[str, np.ndarray] = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        form, size = take("B"), take("I")
        raw = np.frombuffer(data[place : place + size], np.uint16 if form == _BFLOAT16 else _TYPES[form])
        if form == _BFLOAT16:
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        found[name] = raw.reshape(shape)
        place += size
    for _ in range(take("I")):
        alias = text()
        found[alias] = found[text()]
    return found, spec


def _config(weights: dict[str, np.ndarray]) -> WhisperConfig:
    width, mels, _ = weights["encoder/conv1/weight"].shape
    layers = {
        side: len({name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_")} - {"layer_norm"})
        for side in ("encoder", "decoder")
    }
    return WhisperConfig(
        vocab_size=weights["decoder/embeddings/weight"].shape[0],
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=int(weights["encoder/num_heads"]),
        decoder_attention_heads=int(weights["decoder/num_heads"]),
        encoder_ffn_dim=weights["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=weights["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=weights["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=weights["decoder/position_encodings/encodings"].shape[0],
    )


def _renamed(weights: dict[str, np.ndarray], config: WhisperConfig) -> dict[str, torch.Tensor]:
    """Returns the weights by transformers' names: CTranslate2 keeps a layer's queries, keys and values in one
    matrix."""
    found: dict[str, np.ndarray] = {}

    def put(theirs: str, ours: str) -> None:
        for before, after in (("weight", "weight"), ("bias", "bias"), ("gamma", "weight"), ("beta", "bias")):
            if f"{theirs}/{before}" in weights:
                found[f"{ours}.{after}"] = weights[f"{theirs}/{before}"]

    def split(theirs: str, ours: str, names: tuple[str, ...]) -> None:
        for kind in ("weight", "bias"):
            for name, part in zip(names, np.split(weights[f"{theirs}/{kind}"], len(names)), strict=True):
                if (name, kind) != ("k_proj", "bias"):  # Whisper's keys have none: there it is all zeros
                    found[f"{ours}.{name}.{kind}"] = part

    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        found[f"model.{side}.embed_positions.weight"] = weights[f"{side}/position_encodings/encodings"]
        put(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for layer in range(layers):
            theirs, ours = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            split(f"{theirs}/self_attention/linear_0", f"{ours}.self_attn", ("q_proj", "k_proj", "v_proj"))
            for before, after in _LAYER + (_CROSS if side == "decoder" else ()):
                put(f"{theirs}/{before}", f"{ours}.{after}")
            if side == "decoder":
                split(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn", ("k_proj", "v_proj"))
    for name in ("conv1", "conv2"):
        put(f"encoder/{name}", f"model.encoder.{name}")
    put("decoder/embeddings", "model.decoder.embed_tokens")
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}


def _generation(said: dict[str, Any], tokenizer: Any, config: WhisperConfig) -> GenerationConfig:
    """Returns the settings of transformers' `generate`, as in the checkpoints of openai/whisper-*."""
    ids = tokenizer.convert_tokens_to_ids
    start, end = ids("<|startoftranscript|>"), ids("<|endoftext|>")
    languages = {f"<|{code}|>": ids(f"<|{code}|>") for code in LANGUAGES}
    several = config.vocab_size > ENGLISH_ONLY
    settings: dict[str, Any] = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "prev_sot_token_id": ids("<|startofprev|>"),
        "no_timestamps_token_id": ids("<|notimestamps|>"),
        "suppress_tokens": said.get("suppress_ids") or [],
        "begin_suppress_tokens": said.get("suppress_ids_begin") or [],
        "alignment_heads": said.get("alignment_heads"),
        "max_initial_timestamp_index": 50,
        "max_length": config.max_target_positions,
        "return_timestamps": False,
        "is_multilingual": several,
    }
    if several:
        settings["lang_to_id"] = {name: token for name, token in languages.items() if token in said["lang_ids"]}
        settings["task_to_id"] = {"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")}
    return GenerationConfig(**settings)


ENGLISH_ONLY = 51864
"""Number of tokens of English-only models; the others have more."""
