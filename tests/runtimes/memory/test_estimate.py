"""What is said of a model's memory before it is loaded, against what is allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes.memory import estimate as memory
from engine.schemas.hardware import CpuHardwareSpec, CudaHardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec

pytest.importorskip("transformers")
MIB = 2**20
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": 512}
CHAT = ModelSpec(name="tiny", tasks=("chat",))


def llama(folder: Path, **config: Any) -> Any:
    """A small Llama in the folder, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, **config}
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.save_pretrained(folder)
    return model.eval()


def cpu(**knobs: Any) -> CpuHardwareSpec:
    return CpuHardwareSpec(kind="cpu", **{"dtype": "float32", **knobs})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_what_the_loaded_model_holds(tmp_path: Path, dtype: str) -> None:
    import torch

    model = llama(tmp_path).to(getattr(torch, dtype))
    held = sum(weight.nbytes for weight in model.parameters())
    found = memory.of(Artifact(tmp_path, "safetensors", "test"), CHAT, cpu(dtype=dtype))
    assert found.weights == pytest.approx(held, rel=0.1)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.slow
def test_a_config_alone_says_the_weights_of_its_model(tmp_path: Path) -> None:
    held = sum(weight.nbytes for weight in llama(tmp_path).parameters())
    (tmp_path / "model.safetensors").unlink()
    found = memory.of(Artifact(tmp_path, "safetensors", "test"), CHAT, cpu())
    assert found.weights == pytest.approx(held, rel=0.1)


@pytest.mark.slow
def test_the_kv_cache_is_what_a_generation_keeps(tmp_path: Path) -> None:
    import torch

    model = llama(tmp_path)
    ids = torch.randint(0, 500, (3, 64))
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    shape = memory.shape_of(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert shape is not None
    assert shape.kv_bytes(3, 64, 4.0) == held


@pytest.mark.slow
def test_activations_are_within_half_and_three_times_of_the_peak_of_a_pass(tmp_path: Path) -> None:
    import torch

    model = llama(tmp_path, hidden_size=256, intermediate_size=1024)
    ids = torch.randint(0, 500, (1, 256))
    with torch.inference_mode(), Live() as live:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    shape = memory.shape_of(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert shape is not None
    assert live.peak / 2 <= shape.activation_bytes(256, 1, 4.0) <= 3 * live.peak


def Live() -> Any:  # noqa: N802 - a class, made when torch is there
    """Counts the bytes that a pass holds at once: every new storage, until it is freed."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counting(TorchDispatchMode):  # type: ignore[misc]
        peak = now = 0
        seen: set[int]

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in given:
                    storage = leaf.untyped_storage()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(leaf, self._free, storage.nbytes())
            return result

        def _free(self, size: int) -> None:
            self.now -= size

    return Counting()


@pytest.mark.slow
def test_quantized_linear_layers_count_a_byte_each(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "safetensors", "test")
    model = llama(tmp_path)
    linear = sum(
        module.weight.numel() for name, module in model.model.layers.named_modules() if hasattr(module, "bias")
    )
    full = memory.of(artifact, CHAT, cpu()).weights
    assert full - memory.of(artifact, CHAT, cpu(quantization="int8_dynamic")).weights == 3 * linear


@pytest.mark.slow
def test_a_model_that_cant_fit_is_refused_with_the_numbers_and_the_next_step(tmp_path: Path) -> None:
    llama(tmp_path)
    hardware = cpu(memory_limit_gib=0.001)
    found = memory.of(Artifact(tmp_path, "safetensors", "test"), CHAT, hardware)
    with pytest.raises(SetupError) as refused:
        memory.check(found, hardware, "tiny")
    said = str(refused.value)
    assert "weights 2 MiB, KV cache 0 MiB for one sequence of 256 tokens" in said
    assert "hardware.memory_limit_gib allows 0.00 GiB" in said
    assert "Next: hardware.quantization=int8, model.context_length=64" in said


@pytest.mark.slow
def test_what_fits_is_not_refused_and_replicas_count(tmp_path: Path) -> None:
    llama(tmp_path)
    artifact = Artifact(tmp_path, "safetensors", "test")
    one = memory.of(artifact, CHAT, cpu())
    four = memory.of(artifact, CHAT, cpu(replicas=4))
    assert four.least == 4 * one.least
    memory.check(one, cpu(memory_limit_gib=1), "tiny")
    memory.check(one, cpu(), "tiny")


@pytest.mark.slow
@pytest.mark.parametrize(
    "hardware",
    [
        OpenVinoHardwareSpec(kind="openvino", kv_cache_gib=2, memory_limit_gib=1),
        CudaHardwareSpec(kind="cuda", kv_cache_gib=2, memory_limit_gib=1),
    ],
    ids=["openvino", "cuda"],
)
def test_a_cache_of_fixed_size_is_counted_as_it_is(
    tmp_path: Path, hardware: OpenVinoHardwareSpec | CudaHardwareSpec
) -> None:
    llama(tmp_path)
    found = memory.of(Artifact(tmp_path, "safetensors", "test"), CHAT, hardware)
    assert found.kv_sequence == found.kv_all == 2 * memory.GIB
    with pytest.raises(SetupError, match=r"KV cache 2\.00 GiB, .* Next: .*hardware\.kv_cache_gib=0\.5"):
        memory.check(found, hardware, "tiny")


@pytest.mark.slow
def test_static_batches_on_cuda_have_a_cache_that_grows(tmp_path: Path) -> None:
    llama(tmp_path)
    artifact = Artifact(tmp_path, "safetensors", "test")
    static = CudaHardwareSpec(kind="cuda", kv_cache_gib=2, continuous_batching=False)
    assert memory.of(artifact, CHAT, static) == memory.of(artifact, CHAT, CudaHardwareSpec(kind="cuda"))


@pytest.mark.parametrize(
    ("config", "tokens", "kept"),
    [
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, 100, 2 * 100 * 64),
        ({"n_layer": 2, "n_head": 4, "n_embd": 64}, 100, 2 * 100 * 64),
        (
            {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "num_key_value_heads": 1},
            100,
            2 * 100 * 16,
        ),
        (
            {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "sliding_window": 10,
             "layer_types": ["sliding_attention", "full_attention"]},
            100,
            110 * 64,
        ),
        (
            {"is_encoder_decoder": True, "num_layers": 6, "num_decoder_layers": 2, "num_heads": 4, "d_model": 64,
             "d_kv": 8},
            100,
            2 * 2 * 100 * 32,
        ),
        ({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}}, 100, 2 * 100 * 64),
    ],
    ids=["plain", "gpt2's names", "shared keys", "sliding window", "encoder-decoder", "text part"],
)  # fmt: skip
def test_the_kv_cache_follows_the_config(config: dict[str, Any], tokens: int, kept: int) -> None:
    shape = memory.shape_of(config)
    assert shape is not None
    assert shape.kv_bytes(1, tokens, 2.0) == 2 * 2 * kept


def test_a_config_of_another_kind_says_nothing_of_caches() -> None:
    assert memory.shape_of({"image_size": 224}) is None


def test_a_cut_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 12)
    with pytest.raises(SetupError, match=r"model\.safetensors is not a safetensors file"):
        memory.weights_of(Artifact(tmp_path, "safetensors", "test"))
