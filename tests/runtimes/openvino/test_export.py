"""Generators from safetensors on OpenVINO: exported for its continuous batching, or part by part."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.artifacts.cache import Cache, Entry
from engine.artifacts.resolve import Artifact
from engine.cli import main
from engine.core.errors import SetupError
from engine.core.registry import RUNTIMES
from engine.runtimes import devices
from engine.runtimes.openvino import export
from engine.schemas.hardware import CpuHardwareSpec, HardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.tasks.local_model import Sampling
from tests.runtimes.tiny_models import causal

pytest.importorskip("openvino_genai")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

MODEL = ModelSpec(name="tiny", tasks=("completion",))
PROMPTS: tuple[str, ...] = ("hello world", "a b c d e f g", "world world hello x y z")
EXACT = OpenVinoHardwareSpec(kind="openvino", precision="f32")
TORCH = CpuHardwareSpec(kind="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """What is exported here is not kept for the user."""
    return Cache(tmp_path_factory.mktemp("cache"))


def made(cache: Cache, what: str) -> dict[str, Entry]:
    """What is in the cache of this kind, by its content id."""
    return {entry.cid: entry for entry in cache.entries() if entry.source == f"{what} of test"}


def answers(
    folder: Path,
    hardware: HardwareSpec,
    cache: Cache | None = None,
    format: str = "safetensors",
    prompts: tuple[str, ...] = PROMPTS,
) -> list[str]:
    """Of all prompts, asked at once."""

    async def ask() -> list[str]:
        kind = devices.runtime_of(hardware)
        runtime = kind(hardware, MODEL, Artifact(folder, format, "test", cache=cache), 0)
        await runtime.start()
        try:
            return await asyncio.gather(*(one(runtime, prompt) for prompt in prompts))
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


def test_an_exported_model_answers_as_with_torch(llama: Path, cache: Cache) -> None:
    wanted = answers(llama, TORCH)
    assert len(set(wanted)) == len(PROMPTS)
    assert answers(llama, EXACT, cache) == wanted


def test_an_architecture_without_paged_attention_runs_part_by_part_and_is_exported_in_vain_once(
    tmp_path: Path, cache: Cache
) -> None:
    causal(tmp_path, "Bloom")
    # Of a single prompt: several need graphs of their own.
    assert answers(tmp_path, EXACT, cache, prompts=PROMPTS[:1]) == answers(tmp_path, TORCH, prompts=PROMPTS[:1])
    before = made(cache, "OpenVINO")
    with pytest.raises(export.CannotExport, match="can't run BloomForCausalLM"):
        export.exported(Artifact(tmp_path, "safetensors", "test", cache=cache), "none")
    assert made(cache, "OpenVINO").keys() == before.keys()


def test_an_export_is_made_once(llama: Path, cache: Cache) -> None:
    answers(llama, EXACT, cache)
    before = made(cache, "OpenVINO")
    answers(llama, EXACT, cache)
    assert made(cache, "OpenVINO").keys() == before.keys()


def test_weights_of_eight_bits_are_smaller(llama: Path, cache: Cache) -> None:
    pytest.importorskip("nncf")
    assert all(answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8"), cache))
    (smaller,) = made(cache, "OpenVINO int8")
    plain = export.exported(Artifact(llama, "safetensors", "test", cache=cache), "none")
    held = cache.use(smaller)
    assert held is not None
    sizes = [(each.path / "openvino_model.bin").stat().st_size for each in (held, plain)]
    assert sizes[0] < 0.5 * sizes[1]


def test_activations_of_a_generator_are_not_quantized(llama: Path) -> None:
    with pytest.raises(SetupError, match=r"int8_full is for models that do not generate\. Next: int8 or int4"):
        answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8_full"))


def test_a_file_that_is_quantized_already_stays_so(llama: Path) -> None:
    with pytest.raises(SetupError, match="a file of gguf keeps the type it has"):
        answers(llama, OpenVinoHardwareSpec(kind="openvino", quantization="int8"), format="gguf")


@pytest.mark.parametrize(
    ("kinds", "read"),
    [(("gguf", "safetensors"), ("gguf", "openvino")), (("safetensors",), ("gguf", "openvino", "safetensors"))],
)
def test_a_file_that_needs_no_export_goes_first(kinds: tuple[str, ...], read: tuple[str, ...]) -> None:
    sources = [{"kind": "file", "path": "x", "format": kind} for kind in kinds]
    model = ModelSpec.model_validate({"name": "tiny", "tasks": ["chat"], "sources": sources})
    assert RUNTIMES.get("openvino").formats(model) == read


def test_an_export_lies_where_the_run_says_and_is_evicted_when_nobody_uses_it(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path)  # a failed test's traceback may hold an entry of the one that the others share
    where = f"storage.cache_dir={cache.root}"
    source = f"model.sources=[{{kind: file, path: {llama}, format: safetensors}}]"
    words = ["provider=local", "model=remote", "model.name=tiny", "model.tasks=[completion]", "hardware=openvino"]

    def entries() -> dict[str, bool]:
        assert main(["artifacts", "cache", "list", "--json", where]) == 0
        return {entry["cid"]: entry["in_use"] for entry in json.loads(capsys.readouterr().out)}

    async def used() -> list[str]:
        async with Engine.compose([*words, source, where]) as engine:
            await engine.start()
            return [cid for cid, in_use in entries().items() if in_use]

    (cid,) = asyncio.run(used())
    gc.collect()
    assert entries() == {cid: False}
