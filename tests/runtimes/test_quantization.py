"""Smaller weights: how far the answers drift, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes import devices
from engine.runtimes.openvino.quantization import calibration_texts
from engine.runtimes.torch import quantization
from engine.schemas.hardware import CpuHardwareSpec, HardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec

pytest.importorskip("transformers")
ENCODER = ModelSpec(name="minilm-l6", tasks=("embedding",))
TEXTS = ["The gardener found an old map.", "Prices rose again.", "Whales sleep upright in the sea."]


def vectors(folder: Path, hardware: HardwareSpec) -> Any:
    async def embed() -> Any:
        runtime = devices.runtime_of(hardware)(hardware, ENCODER, Artifact(folder, "safetensors", ""), 0)
        await runtime.start()
        try:
            return (await runtime.embed(TEXTS)).vectors
        finally:
            await runtime.aclose()

    return asyncio.run(embed())


@pytest.fixture(scope="module")
def exact(minilm_folder: Path) -> Any:
    return vectors(minilm_folder, CpuHardwareSpec(kind="cpu", dtype="float32"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("int8_dynamic", 0.9), ("int8", 0.99), ("int4", 0.9)])
def test_a_quantized_encoder_on_torch_answers_nearly_the_same(
    minilm_folder: Path, exact: Any, kind: Any, least: float
) -> None:
    if kind in devices.QUANTIZERS["cpu"]:
        pytest.importorskip("torchao")
    found = vectors(minilm_folder, CpuHardwareSpec(kind="cpu", quantization=kind))
    cosines = (found * exact).sum(1)
    assert cosines.min() > least
    assert not np.array_equal(found, exact)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("int8", 0.999), ("int4", 0.9), ("int8_full", 0.995)])
def test_a_quantized_encoder_on_openvino_answers_nearly_the_same(
    minilm_folder: Path, exact: Any, kind: Any, least: float
) -> None:
    pytest.importorskip("nncf")
    found = vectors(minilm_folder, OpenVinoHardwareSpec(kind="openvino", quantization=kind))
    assert (found * exact).sum(1).min() > least


@pytest.mark.slow
def test_gpt2s_own_linear_layers_are_quantized_and_its_words_are_not() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=100)).eval()
    ids = torch.randint(0, 100, (1, 12))
    with torch.inference_mode():
        wanted = model(input_ids=ids).logits
        model = quantization.quantize_torch(model, "int8_dynamic")
        found = model(input_ids=ids).logits
    assert "DynamicQuantized" in repr(model.transformer.h[0].attn.c_attn)
    assert type(model.lm_head) is torch.nn.Linear
    assert torch.nn.functional.cosine_similarity(wanted, found, dim=-1).min() > 0.99


@pytest.mark.slow
def test_a_model_without_linear_layers_is_refused() -> None:
    import torch

    with pytest.raises(SetupError, match=r"Conv2d has no linear layer that int8 makes smaller"):
        quantization.quantize_torch(torch.nn.Conv2d(3, 3, 3), "int8")


@pytest.mark.skipif(devices.installed("bitsandbytes"), reason="bitsandbytes is installed")
def test_a_quantizer_that_is_not_installed_is_named_with_its_extra() -> None:
    from engine.schemas.hardware import CudaHardwareSpec

    with pytest.raises(SetupError, match=r'bnb_int4 needs bitsandbytes.*pip install "ipfs-accelerate\[bitsandbytes\]"'):
        devices._check_packages(CudaHardwareSpec(kind="cuda", quantization="bnb_int4"))


def test_calibration_texts_are_the_lines_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\n\n two \n", encoding="utf-8")
    assert calibration_texts(str(file)) == ("one", "two")
    assert len(calibration_texts(None)) == 64


def test_a_file_of_calibration_texts_that_cant_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^hardware\.calibration_texts: .*missing\.txt can't be read"):
        calibration_texts(str(tmp_path / "missing.txt"))
