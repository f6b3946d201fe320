"""Which GPU gets which module, planned on the meta device: no GPU is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.core.errors import ConfigError, SetupError
from engine.runtimes.memory import device_map
from engine.schemas.hardware import CudaHardwareSpec

pytest.importorskip("transformers")
GIB = 2**30
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Llama 3.1 8B without weights."""
    folder: Path = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA_8B), encoding="utf-8")
    return device_map.sketch(folder, device_map.model_class(("chat",)))


def spread(model: Any, kind: Any, **gib: float) -> device_map.Spread:
    hardware = CudaHardwareSpec(
        kind="cuda",
        device_map=kind,
        max_memory_gib={key if key == "cpu" else int(key[3:]): g for key, g in gib.items()},
    )
    return device_map.spread(model, hardware, device_map.memory_of(hardware, {}), 2.0)


def test_balanced_gives_each_gpu_about_the_same_and_keeps_layers_whole(llama: Any) -> None:
    found = spread(llama, "balanced", gpu0=24, gpu1=24, gpu2=24)
    assert sum(found.bytes.values()) == pytest.approx(8_030_261_248 * 2, rel=0.001)
    assert max(found.bytes.values()) - min(found.bytes.values()) < 1.5 * GIB
    assert set(found.bytes) == {0, 1, 2}
    assert found.map["model.layers.0"] == 0
    assert found.map["lm_head"] == 2
    assert all(name.count(".") <= 2 for name in found.map)


def test_auto_is_balanced(llama: Any) -> None:
    assert spread(llama, "auto", gpu0=24, gpu1=24) == spread(llama, "balanced", gpu0=24, gpu1=24)


def test_sequential_fills_one_gpu_after_the_other(llama: Any) -> None:
    found = spread(llama, "sequential", gpu0=10, gpu1=10)
    assert 9 * GIB < found.bytes[0] <= 10 * GIB
    assert list(found.map.values()) == sorted(found.map.values())  # type: ignore[type-var]


def test_what_the_gpus_cant_hold_goes_to_the_cpu_where_it_may(llama: Any) -> None:
    found = spread(llama, "balanced", gpu0=6, gpu1=6, cpu=20)
    assert found.bytes["cpu"] > 2 * GIB
    assert found.bytes[0] <= 6 * GIB


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(llama: Any) -> None:
    with pytest.raises(SetupError, match=r"weights are 14\.96 GiB and do not fit \(0: 4\.00, 1: 4\.00 GiB\).*Next: "):
        spread(llama, "balanced", gpu0=4, gpu1=4)


def test_own_names_are_taken_by_the_longest(llama: Any) -> None:
    found = spread(llama, {"model": 0, "model.layers.31": 1, "lm_head": 1})
    assert found.map["model.layers.30"] == 0
    assert found.map["model.layers.31"] == 1


def test_a_name_that_the_model_does_not_have_is_refused_with_the_nearest(llama: Any) -> None:
    with pytest.raises(ConfigError, match=r"^hardware\.device_map\.model\.layerz: .*model\.layers"):
        spread(llama, {"model.layerz": 0})


def test_a_module_without_a_device_is_named(llama: Any) -> None:
    with pytest.raises(ConfigError, match=r"names no device for it\. Next: .*lm_head"):
        spread(llama, {"model": 0})


def test_parts_of_a_layer_cant_be_spread(llama: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.mlp can't be spread apart from model\.layers\.0"):
        spread(llama, {"model.embed_tokens": 0, "model.layers.0.mlp": 0, "lm_head": 0})


def test_the_lines_say_what_each_gpu_holds(llama: Any) -> None:
    lines = spread(llama, "balanced", gpu0=24, gpu1=24).lines()
    assert lines[0].startswith("GPU 0: 7.89 GiB in 18 modules: model.embed_tokens … model.layers.16")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"tensor_parallel": True, "device_map": "auto"}, "choose one"),
        ({"replicas": 2, "device_map": "auto"}, "replicas take one GPU each"),
        ({"max_memory_gib": {0: 1}}, "max_memory_gib is for device_map"),
    ],
)
def test_ways_of_spreading_that_exclude_each_other_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CudaHardwareSpec.model_validate({"kind": "cuda", **knobs})


def test_an_embedding_model_is_spread_by_the_names_it_is_loaded_with(tmp_path: Path) -> None:
    from transformers import AutoModel

    config = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
              "intermediate_size": 128, "vocab_size": 100}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert device_map.model_class(("embedding",)) is AutoModel
    found = spread(device_map.sketch(tmp_path, device_map.model_class(("embedding",))), "balanced", gpu0=1, gpu1=1)
    assert found.map["encoder.layer.0"] == 0
    assert found.map["encoder.layer.3"] == 1
