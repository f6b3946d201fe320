"""The real models, loaded once for all tests of the runtimes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts.resolve import Artifact
from engine.core.registry import RUNTIMES
from engine.schemas.hardware import CpuHardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from tests.runtimes.tiny_models import make

HARDWARE = {
    "openvino": OpenVinoHardwareSpec(kind="openvino", prefix_caching=False),
    "torch": CpuHardwareSpec(kind="cpu"),
}
CHAT = ModelSpec(name="smollm2-135m", tasks=("chat", "completion"))
ENCODER = ModelSpec(name="minilm-l6", tasks=("embedding",))


def _loaded(kind: str, model: ModelSpec, artifact: Artifact) -> Iterator[Any]:
    pytest.importorskip({"openvino": "openvino_genai", "torch": "transformers"}[kind])
    runtime = RUNTIMES.get(kind)(HARDWARE[kind], model, artifact, 0)
    asyncio.run(runtime.start())
    yield runtime
    asyncio.run(runtime.aclose())


@pytest.fixture(scope="session", params=["openvino", "torch"])
def generator(request: pytest.FixtureRequest, smollm2_gguf: Path) -> Iterator[Any]:
    """SmolLM2-135M-Instruct on a runtime."""
    yield from _loaded(request.param, CHAT, Artifact(smollm2_gguf, "gguf", "test"))


@pytest.fixture(scope="session", params=["openvino", "torch"])
def encoder(request: pytest.FixtureRequest, minilm_folder: Path) -> Iterator[Any]:
    """all-MiniLM-L6-v2 on a runtime."""
    yield from _loaded(request.param, ENCODER, Artifact(minilm_folder, "safetensors", "test"))


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The encoder's files, fetched once into the artifact cache."""
    from engine.artifacts.resolve import fetch
    from engine.config.compose import compose
    from engine.core.errors import EngineError

    try:
        return fetch(compose(["model=minilm-l6"]).spec.model, ("safetensors",)).path
    except EngineError as error:
        pytest.skip(f"the model can't be had here: {error}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a task's tiny model, made once for all tests."""
    made: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in made:
            made[task] = make(task, tmp_path_factory.mktemp("model") / "tiny")
        return made[task]

    return of
