"""Which models transformers' managers are given, tried on the CPU with tiny ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.schemas.hardware import CudaHardwareSpec
from tests.runtimes.tiny_models import causal

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
paged = pytest.importorskip("engine.runtimes.torch.paged")

pytestmark = pytest.mark.slow

FEW_HEADS = {"num_key_value_heads": 1}


def loaded(folder: Path, kind: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    causal(folder, kind, **config)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def hardware(**changes: Any) -> CudaHardwareSpec:
    return CudaHardwareSpec.model_validate({"kind": "cuda", **changes})


@pytest.mark.parametrize(
    ("kind", "config"),
    [("Mistral", FEW_HEADS | {"sliding_window": 6}), ("Gemma3Text", FEW_HEADS | {"head_dim": 16}), ("OPT", {})],
)
def test_a_model_that_a_manager_runs_keeps_torchs_attention(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    assert paged.prepared(loaded(tmp_path, kind, config), hardware()).config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("Mamba", {"state_size": 4}, "neither torch's attention nor flash attention"),
        ("Bloom", {"n_head": 2, "n_layer": 2}, "neither torch's attention nor flash attention"),
        ("Falcon", {}, "RuntimeError: The size of tensor"),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
            "its positions depend on the longest text of a batch",
        ),
    ],
)
def test_a_model_that_a_manager_can_not_run_is_found_out(
    tmp_path: Path, kind: str, config: dict[str, Any], reason: str
) -> None:
    model = loaded(tmp_path, kind, config)
    before = model.config._attn_implementation
    with pytest.raises(paged.Unsuited, match=reason):
        paged.prepared(model, hardware())
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"compile": True}, "hardware.compile"),
        ({"device_map": "balanced"}, "spread over several GPUs"),
        ({"tensor_parallel": True}, "spread over several GPUs"),
        ({"quantization": "bnb_int8"}, "bitsandbytes"),
    ],
)
def test_hardware_settings_that_managers_do_not_go_with_leave_static_batches(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(paged.Unsuited, match=reason):
        paged.prepared(loaded(tmp_path, "Llama", {}), hardware(**changes))


def test_a_models_own_rules_for_what_it_generates_leave_static_batches(tmp_path: Path) -> None:
    model = loaded(tmp_path, "Llama", {})
    model.generation_config.no_repeat_ngram_size = 3
    with pytest.raises(paged.Unsuited, match=r"generation_config.json has no_repeat_ngram_size"):
        paged.prepared(model, hardware())


def test_a_twin_shares_the_weights_and_nothing_else(tmp_path: Path) -> None:
    model = loaded(tmp_path, "Llama", {})
    twin = paged.twin(model)
    places = [{tensor.data_ptr() for tensor in one.parameters()} for one in (model, twin)]
    assert places[0] == places[1]
    assert twin.config is not model.config
    assert twin.model.layers[0].self_attn.config is twin.model.config is twin.config


def test_the_size_of_a_page_is_what_the_manager_allocates(tmp_path: Path) -> None:
    model = loaded(tmp_path, "Qwen2", FEW_HEADS)
    count = 6
    size = paged.page_bytes(model)
    manager = paged.open_manager(model, sampled=False, max_sequences=4, share=0.1, cache_bytes=size * count + 5, seed=0)
    try:
        assert paged.room(manager) == count * paged.PAGE_TOKENS
        cache = manager.batch_processor.cache.cache_tensor
        assert cache.numel() == size * (count + 2)  # transformers keeps two pages for padding
    finally:
        paged.end(manager)
