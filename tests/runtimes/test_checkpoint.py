"""Checkpoints that are not whole, on every way that a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from engine.core.errors import SetupError
from tests.runtimes import tiny_models

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TORCH = ["hardware=cpu", "hardware.dtype=float32"]
OPENVINO = ["hardware=openvino", "hardware.precision=f32"]
Model = tuple[Callable[[Path], Any], str, str]
LLAMA: Model = (lambda folder: tiny_models.causal(folder, "Llama"), "completion", "model.layers.1.mlp.up_proj.weight")
ENCODER: Model = (
    lambda folder: tiny_models.bert(folder, "MaskedLM"),
    "embedding",
    "bert.encoder.layer.1.attention.self.query.weight",
)
CLASSES: Model = (
    lambda folder: tiny_models.bert(folder, "SequenceClassification"),
    "text-classification",
    "classifier.bias",
)
LETTERS: Model = (
    lambda folder: tiny_models.t5(folder),
    "summarization",
    "decoder.block.1.layer.0.SelfAttention.q.weight",
)
SERIES: Model = (tiny_models.patchtst, "time-series-forecasting", "head.projection.weight")
MODELS = {"generator": LLAMA, "encoder": ENCODER, "classes": CLASSES, "summaries": LETTERS, "series": SERIES}


def made(make: Callable[[Path], Any], folder: Path) -> Path:
    folder.mkdir()
    make(folder)
    return folder


def without(folder: Path, name: str) -> str:
    """Takes a weight out of the folder's files; its name there."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    found = next(each for each in weights if each.endswith(name))
    del weights[found]
    save_file(weights, file, metadata={"format": "pt"})
    return found


def loaded(folder: Path, task: str, hardware: list[str]) -> Engine:
    source = f"model.sources=[{{kind: file, path: {folder}, format: safetensors}}]"
    cache = f"storage.cache_dir={folder.parent / 'cache'}"
    words = ["provider=local", *hardware, "model=remote", "model.name=tiny", f"model.tasks=[{task}]", source, cache]
    return Engine.compose(words)


def refusal(folder: Path, task: str, hardware: list[str]) -> str:
    with pytest.raises(SetupError) as raised, loaded(folder, task, hardware) as engine:
        engine.sync.submit(Request(task, {}))
    return str(raised.value)


@pytest.mark.parametrize("hardware", [TORCH, OPENVINO], ids=["torch", "openvino"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_missing_weight_is_named(tmp_path: Path, kind: str, hardware: list[str]) -> None:
    make, task, name = MODELS[kind]
    folder = made(make, tmp_path / "tiny")
    missing = without(folder, name)
    assert missing.removeprefix("bert.") in refusal(folder, task, hardware)


@pytest.mark.parametrize("hardware", [TORCH, OPENVINO], ids=["torch", "openvino"])
@pytest.mark.parametrize("kind", ["generator", "encoder", "classes"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_was_cut_is_named(tmp_path: Path, kind: str, hardware: list[str], file: str) -> None:
    make, task, _ = MODELS[kind]
    folder = made(make, tmp_path / "tiny")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    message = refusal(folder, task, hardware)
    assert str(folder / file) in message
    assert "fetch" in message


def test_an_encoder_needs_no_pooler(tmp_path: Path) -> None:
    """A checkpoint of BERT for masked words has none, and sentence vectors are not made with it."""
    folder = made(ENCODER[0], tmp_path / "tiny")
    with loaded(folder, "embedding", TORCH) as engine:
        result = engine.sync.submit(Request("embedding", {"input": "hello"}))
    assert len(result.body["data"][0]["embedding"]) == 32


def test_a_model_without_the_head_of_its_task_is_refused(tmp_path: Path) -> None:
    folder = made(ENCODER[0], tmp_path / "tiny")
    message = refusal(folder, "text-classification", TORCH)
    assert "lacks weights of BertForSequenceClassification" in message
    assert "classifier.bias" in message
    assert "model.tasks" in message


def test_a_diffusers_part_without_a_weight_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    folder = made(tiny_models.stable_diffusion, tmp_path / "tiny")
    from safetensors.torch import load_file, save_file

    file = next((folder / "unet").glob("*.safetensors"))
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)
    message = refusal(folder, "text-to-image", TORCH)
    assert "lacks weights of UNet2DConditionModel: conv_in.weight" in message


def sentence_model(folder: Path, **changes: Any) -> None:
    """A BERT with a dense layer of sentence-transformers' behind its pooling."""
    import torch
    from safetensors.torch import save_file

    made(ENCODER[0], folder)
    package = "sentence_transformers.models."
    kinds = changes.get("modules", ["Transformer", "Pooling", "Dense", "Normalize"])
    modules = [
        {"idx": index, "name": str(index), "path": "" if index == 0 else f"{index}_{kind}", "type": package + kind}
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    for module in modules[1:]:
        (folder / module["path"]).mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, **changes.get("pooling", {})}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
    if "Dense" in kinds:
        activation = changes.get("activation", "torch.nn.modules.activation.Tanh")
        dense = {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(dense), "utf-8")
        torch.manual_seed(3)
        weights = {"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    if "prompts" in changes:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(changes["prompts"]), "utf-8")


def vector(folder: Path, text: str, hardware: list[str]) -> list[float]:
    with loaded(folder, "embedding", hardware) as engine:
        result = engine.sync.submit(Request("embedding", {"input": text}))
    assert result.error is None
    found: list[float] = result.body["data"][0]["embedding"]
    return found


def expected(folder: Path, text: str) -> Any:
    """The vector as sentence-transformers computes it: mean, dense, tanh, length 1."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state.mean(1)
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    dense = torch.tanh(hidden @ weights["linear.weight"].T + weights["linear.bias"])
    return torch.nn.functional.normalize(dense, dim=1)[0]


@pytest.mark.parametrize("hardware", [TORCH, OPENVINO], ids=["torch", "openvino"])
def test_a_dense_module_and_a_default_prompt_are_computed(tmp_path: Path, hardware: list[str]) -> None:
    plain, prompted = tmp_path / "plain", tmp_path / "prompted"
    sentence_model(plain)
    sentence_model(prompted, prompts={"prompts": {"query": "world "}, "default_prompt_name": "query"})
    assert vector(plain, "hello", hardware) == pytest.approx(expected(plain, "hello").tolist(), abs=2e-5)
    assert vector(prompted, "hello", hardware) == pytest.approx(expected(prompted, "world hello").tolist(), abs=2e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modules": ["Transformer", "Pooling", "LayerNorm"]}, "module LayerNorm after the pooling is not supported"),
        ({"modules": ["StaticEmbedding"]}, "got StaticEmbedding; expected Transformer, Pooling"),
        (
            {"activation": "torch.nn.modules.activation.Softmax"},
            "got activation_function Softmax; expected one of",
        ),
        ({"prompts": {"prompts": {}, "default_prompt_name": "query"}}, "got default_prompt_name 'query'"),
        (
            {"prompts": {"prompts": {"q": "x"}, "default_prompt_name": "q"}, "pooling": {"include_prompt": False}},
            "leaves the prompt out",
        ),
    ],
)
def test_a_part_that_is_not_known_is_refused_by_its_name(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    folder = tmp_path / "tiny"
    if changes.get("modules", [""])[0] == "StaticEmbedding":
        made(ENCODER[0], folder)
        (folder / "modules.json").write_text(json.dumps([{"type": "x.StaticEmbedding", "path": ""}]), "utf-8")
    else:
        sentence_model(folder, **changes)
    assert reason in refusal(folder, "embedding", TORCH)
