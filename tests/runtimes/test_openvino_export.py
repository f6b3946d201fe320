"""Generators from safetensors on OpenVINO: exported for its continuous batching, or part by part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts import Artifact
from engine.errors import SetupError
from engine.registry import RUNTIMES
from engine.runtime import Sampling
from engine.runtimes import probe
from schemas.hardware import CpuHardwareSpec, HardwareSpec, OpenVinoHardwareSpec
from schemas.model import ModelSpec

from .tiny_models import causal

pytest.importorskip("openvino_genai")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

MODEL = ModelSpec(name="tiny", tasks=("completion",))
PROMPTS = ("hello world", "a b c d e f g", "world world hello x y z")
EXACT = OpenVinoHardwareSpec(kind="openvino", precision="f32")
TORCH = CpuHardwareSpec(kind="cpu", dtype="float32")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is exported here is not kept for the user."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("ENGINE_CACHE")
    os.environ["ENGINE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["ENGINE_CACHE"]
    else:
        os.environ["ENGINE_CACHE"] = before


def answers(folder: Path, hardware: HardwareSpec, format: str = "safetensors") -> list[str]:
    """Of all prompts, asked at once."""

    async def ask() -> list[str]:
        kind = RUNTIMES.get(probe.RUNTIME_OF[hardware.kind])
        runtime = kind(hardware, MODEL, Artifact(folder, format, "test"), 0)
        await runtime.start()
        try:
            return await asyncio.gather(*(one(runtime, prompt) for prompt in PROMPTS))
        finally:
            await runtime.aclose()

    return asyncio.run(ask())


async def one(runtime: Any, text: str) -> str:
    prompt = await runtime.encode_text(text)
    pieces = [piece async for piece in runtime.generate(prompt, Sampling(max_tokens=16, temperature=0.0))]
    return "".join(piece.text for piece in pieces)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    causal(folder, "Llama")
    return folder


def test_an_exported_model_answers_as_with_torch(llama: Path) -> None:
    wanted = answers(llama, TORCH)
    assert len(set(wanted)) == len(PROMPTS)
    assert answers(llama, EXACT) == wanted


def test_a_window_of_attention_is_kept(tmp_path: Path) -> None:
    causal(tmp_path, "Mistral", num_key_value_heads=2, sliding_window=16)
    assert answers(tmp_path, EXACT) == answers(tmp_path, TORCH)


def test_an_architecture_without_paged_attention_runs_part_by_part_and_is_exported_in_vain_once(
    tmp_path: Path, own_cache: Path
) -> None:
    causal(tmp_path, "Bloom")
    wanted = answers(tmp_path, TORCH)
    assert answers(tmp_path, EXACT) == wanted
    made = sorted((own_cache / "openvino").iterdir())
    assert any("BloomForCausalLM" in file.read_text() for folder in made for file in folder.glob("cannot.txt"))
    assert answers(tmp_path, EXACT) == wanted
    assert sorted((own_cache / "openvino").iterdir()) == made


def test_an_export_is_made_once(llama: Path, own_cache: Path) -> None:
    answers(llama, EXACT)
    made = sorted((own_cache / "openvino").iterdir())
    times = [folder.stat().st_mtime_ns for folder in made]
    answers(llama, EXACT)
    assert sorted((own_cache / "openvino").iterdir()) == made
    assert [folder.stat().st_mtime_ns for folder in made] == times


def test_weights_of_eight_bits_are_smaller(llama: Path, own_cache: Path) -> None:
    pytest.importorskip("nncf")
    answers(llama, EXACT)
    before = {folder for folder in (own_cache / "openvino").iterdir() if (folder / "openvino_model.bin").is_file()}
    assert all(answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8")))
    (fresh,) = {file.parent for file in (own_cache / "openvino").glob("*/openvino_model.bin")} - before
    size = (fresh / "openvino_model.bin").stat().st_size
    assert all(size < 0.5 * (folder / "openvino_model.bin").stat().st_size for folder in before)


def test_activations_of_a_generator_are_not_quantized(llama: Path) -> None:
    with pytest.raises(SetupError, match=r"int8_full is for embedding models\. Next: int8 or int4"):
        answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8_full"))


def test_a_file_that_is_quantized_already_stays_so(llama: Path) -> None:
    with pytest.raises(SetupError, match="a file of gguf keeps the type it has"):
        answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8"), "gguf")


@pytest.mark.parametrize(
    ("kinds", "read"),
    [(("gguf", "safetensors"), ("gguf", "openvino")), (("safetensors",), ("gguf", "openvino", "safetensors"))],
)
def test_a_file_that_needs_no_export_goes_first(kinds: tuple[str, ...], read: tuple[str, ...]) -> None:
    sources = [{"kind": "file", "path": "x", "format": kind} for kind in kinds]
    model = ModelSpec.model_validate({"name": "tiny", "tasks": ["chat"], "sources": sources})
    assert RUNTIMES.get("openvino").formats(model) == read
