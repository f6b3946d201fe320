"""Loads a GGUF file into a transformers model.

transformers' own way reads the whole file three times with a slow reader (30 s for a model of 100 MB) and needs
accelerate. Plain Llama files are read here in a few seconds; any other architecture is left to transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from engine.artifacts.gguf import TensorInfo, read
from engine.runtimes import checkpoint


def load(path: Path, kind: torch.dtype) -> tuple[Any, Any]:
    """Loads the model, its weights as `kind`, and its tokenizer. Raises ValueError, OSError or SetupError."""
    metadata, tensors = read(path)
    if not _is_plain_llama(metadata, tensors):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        model = checkpoint.load(AutoModelForCausalLM, path.parent, gguf_file=path.name, dtype=kind)
        return model, tokenizer
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    config = _llama_config(metadata, tensors, len(tokenizer))
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
    missing = model.load_state_dict(_weights(path, tensors, model, kind), strict=False).missing_keys
    model.tie_weights()
    lost = [name for name in missing if not (config.tie_word_embeddings and name.startswith("lm_head"))]
    if lost:
        raise ValueError(f"the GGUF file has no {', '.join(lost[:3])}")
    return model, tokenizer


def _is_plain_llama(metadata: dict[str, Any], tensors: list[TensorInfo]) -> bool:
    """Returns True for a model without experts, scaled rotations or Mistral's window, which need other names."""
    special = any(key.startswith(("llama.rope.scaling", "llama.expert")) for key in metadata)
    frequencies = any(tensor.name.startswith("rope_freqs") for tensor in tensors)
    named = str(metadata.get("general.name", "")).lower()
    return (
        metadata.get("general.architecture") == "llama" and not special and not frequencies and "mistral" not in named
    )


def _llama_config(metadata: dict[str, Any], tensors: list[TensorInfo], vocabulary: int) -> LlamaConfig:
    heads = metadata["llama.attention.head_count"]
    hidden = metadata["llama.embedding_length"]
    theta = metadata.get("llama.rope.freq_base", 10000.0)
    return LlamaConfig(
        vocab_size=metadata.get("llama.vocab_size", vocabulary),
        hidden_size=hidden,
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=metadata.get("llama.attention.head_count_kv", heads),
        head_dim=metadata.get("llama.attention.key_length", hidden // heads),
        max_position_embeddings=metadata["llama.context_length"],
        rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in tensors),
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=metadata.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=metadata.get("tokenizer.ggml.padding_token_id"),
    )


def _weights(path: Path, tensors: list[TensorInfo], model: Any, kind: torch.dtype) -> dict[str, torch.Tensor]:
    """Yields every parameter of the model that the file has, by the model's name for it."""
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
    from gguf.quants import dequantize, quant_shape_to_byte_shape

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in tensors}
    data = np.memmap(path, np.uint8, "r")
    found: dict[str, torch.Tensor] = {}
    for name in model.state_dict():
        base, _, suffix = name.rpartition(".")
        tensor = stored.get(f"{names.get_name(base)}.{suffix}")
        if tensor is None:
            continue
        quantization = GGMLQuantizationType(tensor.kind)
        shape = _byte_shape(tensor.shape, quantization, quant_shape_to_byte_shape)
        raw = data[tensor.offset : tensor.offset + int(np.prod(shape))].reshape(shape)
        weights = dequantize(_typed(raw, quantization), quantization).reshape(tensor.shape)
        if ".attn_q." in tensor.name:
            weights = _restore_rotation(weights, model.config.num_attention_heads)
        elif ".attn_k." in tensor.name:
            weights = _restore_rotation(weights, model.config.num_key_value_heads)
        found[name] = torch.from_numpy(np.array(weights)).to(kind)
    return found


def _byte_shape(shape: tuple[int, ...], quantization: Any, of_quantized: Any) -> tuple[int, ...]:
    width = {"F32": 4, "F16": 2}.get(quantization.name)
    return (*shape[:-1], shape[-1] * width) if width else tuple(of_quantized(shape, quantization))


def _typed(raw: np.ndarray, quantization: Any) -> np.ndarray:
    plain = {"F32": np.float32, "F16": np.float16}.get(quantization.name)
    return raw.view(plain) if plain else raw


def _restore_rotation(weights: np.ndarray, heads: int) -> np.ndarray:
    """Undoes the order of rows that llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute) gives queries and keys."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, half, 2, *weights.shape[1:]).swapaxes(2, 1).reshape(weights.shape)
