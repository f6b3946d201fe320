"""A runtime: a "model" in this process that counts words, `hardware=abacus`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal

from engine.artifacts.resolve import Artifact
from engine.core.errors import InvalidRequest
from engine.schemas.hardware import CommonHardwareSpec
from engine.schemas.model import ModelSpec
from engine.tasks.local_model import Embeddings, Sampling, TextDelta
from engine.tasks.pipelines import Ask


class AbacusHardwareSpec(CommonHardwareSpec):
    """The knobs at `hardware`."""

    kind: Literal["abacus"]
    beads: int = 10
    """The base that it counts in."""


class AbacusRuntime:
    """Answers a chat with the number of its words."""

    spec = AbacusHardwareSpec
    device = "abacus:0"
    context_length = 1024
    reads_pictures = False

    def __init__(self, hardware: AbacusHardwareSpec, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        self._beads = hardware.beads

    @staticmethod
    def formats(model: ModelSpec) -> tuple[str, ...]:
        return ("gguf",)

    async def start(self) -> None:
        """Loads nothing."""

    async def aclose(self) -> None:
        """Frees nothing."""

    async def encode_chat(self, messages: list[dict[str, Any]]) -> list[str]:
        return [word for message in messages for word in str(message.get("content", "")).split()]

    async def encode_text(self, text: str) -> list[str]:
        return text.split()

    async def check(self, sampling: Sampling) -> None:
        """Takes any sampling."""

    async def generate(
        self, prompt: list[str], sampling: Sampling, *, whole: bool = False
    ) -> AsyncGenerator[TextDelta, None]:
        yield TextDelta(f"{len(prompt)} words, base {self._beads}", 4, "stop")

    async def embed(self, texts: list[str]) -> Embeddings:
        raise InvalidRequest("task: an abacus has no embeddings")

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        raise InvalidRequest(f"task: an abacus has no {task}")
