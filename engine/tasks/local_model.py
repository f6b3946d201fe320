"""The port of models in this process: load, generate, embed, infer, free. Tasks and runtimes speak in its words; the
runtimes that have it are in `engine/runtimes`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from engine.artifacts.resolve import Artifact
    from engine.schemas.model import ModelSpec
    from engine.tasks.pipelines import Ask


@dataclass(frozen=True, slots=True)
class Sampling:
    """The choice of tokens and the stop conditions. `temperature` 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    """Strings that end the answer and are not part of it."""
    seed: int | None = None
    schema: str | None = None
    """A JSON schema, as JSON text, that the answer is an instance of when it ends with `stop`."""


@dataclass(slots=True)
class TextDelta:
    """The next part of an answer."""

    text: str
    tokens: int
    """Tokens generated for it."""
    finish_reason: str | None = None
    """`stop` or `length` with the last piece."""


@dataclass(slots=True)
class Embeddings:
    """`vectors` is float32, shape (texts, dimensions); `tokens` has the count for each text."""

    vectors: np.ndarray
    tokens: list[int]
    cut: list[int] = field(default_factory=list)
    """Indices of texts that were longer than the model reads; only their beginning is in the vector."""


class Runtime(Protocol):
    """A loaded model; blocking work happens on its own threads."""

    device: str
    """The device that it runs on, such as `openvino:CPU`."""
    context_length: int
    """Tokens of prompt and answer together."""
    reads_pictures: bool
    """True if the messages of a chat may hold images."""

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        ...

    async def aclose(self) -> None:
        """Stops what is in flight and frees the model."""
        ...

    async def encode_chat(self, messages: list[dict[str, Any]]) -> Any:
        """The prompt's tokens by the model's own chat template, an object with a length."""
        ...

    async def encode_text(self, text: str) -> Any:
        """The text's tokens as they are, an object with a length."""
        ...

    async def check(self, sampling: Sampling) -> None:
        """Raises InvalidRequest when `generate` would refuse the sampling's schema, SetupError when a package for
        schemas is missing."""
        ...

    def generate(self, prompt: Any, sampling: Sampling, *, whole: bool = False) -> AsyncGenerator[TextDelta, None]:
        """The answer, piece by piece, from tokens of `encode_*`. Closing the iterator stops the generation.

        `whole` requests one piece at the end, which spares the work that streaming costs at every step.
        Raises TooLong when the prompt leaves no room, Internal when the runtime fails.
        """
        ...

    async def embed(self, texts: list[str]) -> Embeddings:
        """One vector for each text, pooled and normalised as the model says."""
        ...

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        """The outputs of a task of engine.tasks.pipelines, one for each input, as JSON has them.

        Raises InvalidRequest for inputs that can't be read, Internal when the model fails.
        """
        ...


class RuntimeKind(Protocol):
    """A class of runtimes. `seed` seeds what a request leaves open."""

    def __call__(self, hardware: Any, model: ModelSpec, artifact: Artifact, seed: int) -> Runtime:
        """A runtime, with nothing loaded yet."""
        ...

    def formats(self, model: ModelSpec) -> tuple[str, ...]:
        """Layouts of schemas.model.Format that it can read for this model's tasks."""
        ...
