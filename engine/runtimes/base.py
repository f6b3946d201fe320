"""The shared part of the backends for models in this process: loading by task, prompts, and the path of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar, Protocol

from engine.artifacts.resolve import Artifact
from engine.core.errors import EngineError, Internal, SetupError
from engine.runtimes import checkpoint
from engine.runtimes.generation import generator as generating
from engine.runtimes.generation.generator import Generator
from engine.runtimes.generation.prompts import INLINE_CHARACTERS, Prompt, Prompts
from engine.schemas.model import ModelSpec
from engine.tasks import embedding
from engine.tasks.local_model import Embeddings, Sampling, TextDelta
from engine.tasks.pipelines import PIPELINES, Ask


class Encoder(Protocol):
    """A loaded sentence encoder (`runtimes.embedding.encoder`, which needs numpy and tokenizers)."""

    async def embed(self, texts: list[str]) -> Embeddings: ...
    def close(self) -> None: ...


class Pipeline(Protocol):
    """A loaded pipeline (`runtimes.pipelines.model`, which needs torch)."""

    async def answer(self, ask: Ask) -> list[Any]: ...
    def close(self) -> None: ...


class BackendRuntime:
    """A model on one backend: an encoder, pipelines, or a generator with its prompts, by the model's tasks.

    A backend defines how each is loaded (`_load_*`), and has the name and the extra that its errors use.
    """

    name: ClassVar[str]
    """The backend's name in errors."""
    extra: ClassVar[str]
    """The extra of this package that installs it."""
    inline_characters: ClassVar[int] = 0
    """Prompts shorter than this are encoded on the event loop, because a thread would cost more."""
    error_line: ClassVar[int] = 0
    """The line of the backend's own error with the cause."""

    def __init__(self, kind: str, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        self._kind = kind
        self._model = model
        self._artifact = artifact
        self._seed = seed
        self._generator: Generator | None = None
        self._encoder: Encoder | None = None
        self._prompts: Prompts | None = None
        self._pipelines: Mapping[str, Pipeline] = {}
        self.reads_pictures = False
        self.context_length = model.context_length or 0
        self.device = self.name.lower()

    @property
    def steps(self) -> int:
        """Forward passes of the generation, each for all sequences of a batch together."""
        return self._generator.steps if self._generator else 0

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        tasks = self._model.tasks
        load = self._load_generator
        if embedding.TASKS.issuperset(tasks or ("chat",)):
            load = self._load_encoder
        elif PIPELINES.keys() & set(tasks):
            load = self._load_pipelines
        try:
            await asyncio.to_thread(load)
        except ImportError as error:
            raise SetupError(
                f'hardware: {self._kind} needs {error.name}. Next: pip install "ipfs-accelerate[{self.extra}]"'
            ) from error
        except EngineError:
            raise
        except Exception as error:  # damaged files make the backends raise anything
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = await asyncio.to_thread(checkpoint.damage, self._artifact.path)
            raise SetupError(
                f"model: {self.name} can't load {self._model.name!r} from {self._artifact.path.name}: "
                f"{reason or lines[min(self.error_line, len(lines) - 1)]}"
            ) from error

    def _load_generator(self) -> None:
        raise NotImplementedError

    def _load_encoder(self) -> None:
        raise NotImplementedError

    def _load_pipelines(self) -> None:
        raise NotImplementedError

    def _verify(self) -> None:
        """Raises Internal if the backend has found an answer to be wrong."""

    async def aclose(self) -> None:
        """Cancels the requests in flight and frees the model."""
        generator, self._generator, self._prompts = self._generator, None, None
        encoder, self._encoder = self._encoder, None
        loaded, self._pipelines = self._pipelines, {}
        for part in (generator, encoder, *dict.fromkeys(loaded.values())):
            if part is not None:
                await asyncio.to_thread(part.close)

    async def encode_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        """Returns the prompt's tokens by the model's own chat template."""
        size = INLINE_CHARACTERS if self.reads_pictures else sum(len(message["content"]) for message in messages)
        return await self._encoded(size, self._loaded_prompts().of_chat, messages)

    async def encode_text(self, text: str) -> Prompt:
        """Returns the text's tokens as they are."""
        return await self._encoded(len(text), self._loaded_prompts().of_text, text)

    async def _encoded(self, size: int, call: Any, argument: Any) -> Prompt:
        prompt: Prompt = call(argument) if size < self.inline_characters else await asyncio.to_thread(call, argument)
        return prompt

    def _loaded_prompts(self) -> Prompts:
        if self._prompts is None:
            raise Internal("the model is not loaded")
        return self._prompts

    async def check(self, sampling: Sampling) -> None:
        """Makes the grammar of the sampling's schema. Raises InvalidRequest, and SetupError without its package."""
        await generating.check(self._generator, sampling)

    def generate(self, prompt: Prompt, sampling: Sampling, *, whole: bool = False) -> AsyncGenerator[TextDelta, None]:
        """Yields the answer, piece by piece. Closing the iterator stops the generation at its next step."""
        return generating.answer(
            self._generator,
            prompt,
            sampling,
            context_length=self.context_length,
            whole=whole,
            verify=self._verify,
        )

    async def embed(self, texts: list[str]) -> Embeddings:
        """Returns one vector for each text, pooled and normalised by the model's files."""
        if self._encoder is None:
            raise Internal("the model is not loaded")
        try:
            return await self._encoder.embed(texts)
        except RuntimeError as error:
            raise Internal(f"{self.name.lower()} failed while encoding: {error}") from error

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        """Returns the outputs, one for each input, as JSON values."""
        pipeline = self._pipelines.get(task)
        if pipeline is None:
            raise Internal("the model is not loaded")
        outputs = await pipeline.answer(ask)
        self._verify()
        return outputs
