"""Runtime `torch`: generation, sentence embeddings and the tasks of transformers' pipelines, on the CPU or an NVIDIA
GPU."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.artifacts.resolve import Artifact
from engine.core.errors import Internal, SetupError
from engine.runtimes.generation import generator as generating
from engine.runtimes.generation import vision_chat
from engine.runtimes.generation.generator import Generator
from engine.runtimes.generation.prompts import HubPrompts, Prompt, Prompts, VisualPrompts
from engine.runtimes.memory import estimate as memory
from engine.schemas.model import ModelSpec
from engine.tasks import embedding
from engine.tasks.local_model import Embeddings, Sampling, TextDelta
from engine.tasks.pipelines import PIPELINES, Ask, formats

if TYPE_CHECKING:
    from engine.runtimes.embedding.encoder import SentenceEncoder
    from engine.runtimes.pipelines.model import PipelineModel
    from engine.runtimes.torch.loading import TorchHardware


class TorchRuntime:
    """A model in torch."""

    def __init__(self, hardware: TorchHardware, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        self._hardware = hardware
        self._model = model
        self._artifact = artifact
        self._seed = seed
        self._generator: Generator | None = None
        self._encoder: SentenceEncoder | None = None
        self._prompts: Prompts | None = None
        self.reads_pictures = False
        self._pipelines: dict[str, PipelineModel] = {}
        where = f"cuda:{hardware.device}" if hardware.kind == "cuda" else hardware.kind
        self._where = where
        self.device = f"torch:{where}"
        self.context_length = model.context_length or 0

    @classmethod
    def formats(cls, model: ModelSpec) -> tuple[str, ...]:
        """safetensors; generators also from GGUF, when the package gguf is installed."""
        if PIPELINES.keys() & set(model.tasks):
            return formats(model.tasks, "torchscript")
        if embedding.TASKS.issuperset(model.tasks or ("chat",)) or importlib.util.find_spec("gguf") is None:
            return ("safetensors",)
        return ("safetensors", "gguf")

    @property
    def steps(self) -> int:
        """Forward passes of the generation, each for all rows of a batch together."""
        return self._generator.steps if self._generator else 0

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        try:
            if embedding.TASKS.issuperset(self._model.tasks or ("chat",)):
                await asyncio.to_thread(self._load_encoder)
            elif PIPELINES.keys() & set(self._model.tasks):
                await asyncio.to_thread(self._load_pipelines)
            else:
                await asyncio.to_thread(self._load_generator)
        except ImportError as error:
            raise SetupError(
                f'hardware: {self._hardware.kind} needs {error.name}. Next: pip install "ipfs-accelerate[local]"'
            ) from error
        except (
            RuntimeError,
            OSError,
            ValueError,
            KeyError,
        ) as error:  # what torch and transformers raise for bad files
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SetupError(
                f"model: torch can't load {self._model.name!r} from {self._artifact.path.name}: {first}"
            ) from error

    def _load_generator(self) -> None:
        from engine.runtimes.torch import loading

        loading.set_threads(self._hardware)
        name = self._model.name
        self.reads_pictures = self._artifact.format == "safetensors" and vision_chat.is_visual(self._artifact.path)
        if self.reads_pictures:
            model, processor = loading.visual(self._artifact.path, self._hardware)
            tokenizer = processor.tokenizer
            self._prompts = VisualPrompts(processor, name, loading.dtype(self._hardware))
        else:
            model, tokenizer = loading.generator(self._artifact, self._hardware)
            self._prompts = HubPrompts(tokenizer, name)
        shape = memory.shape_of(model.config.to_dict())
        self.context_length = self._model.context_length or (shape.context if shape else 0) or 2048
        self.device = self._described()
        self._generator = self._made_generator(model, tokenizer)

    def _made_generator(self, model: Any, tokenizer: Any) -> Generator:
        if self._hardware.kind == "cuda":
            from engine.runtimes.torch import continuous

            return continuous.generator(model, tokenizer, self._hardware, self._seed)
        from engine.runtimes.torch.static_batches import StaticGenerator

        return StaticGenerator(model, tokenizer, self._hardware.max_sequences, self._seed)

    def _load_encoder(self) -> None:
        from engine.runtimes.embedding import model as sentence_model
        from engine.runtimes.embedding.encoder import SentenceEncoder
        from engine.runtimes.torch import loading
        from engine.runtimes.torch.encoder import TorchForward

        loading.set_threads(self._hardware)
        settings = sentence_model.read(self._artifact.path, self._model.context_length)
        forward = TorchForward(self._artifact.path, settings, self._hardware)
        self._encoder = SentenceEncoder(self._artifact.path, settings, forward)
        self.context_length = settings.max_tokens
        self.device = self._described()

    def _load_pipelines(self) -> None:
        import torch

        from engine.runtimes.pipelines.model import PipelineModel, by_pipeline
        from engine.runtimes.torch import loading

        loading.set_threads(self._hardware)
        dtype = loading.dtype(self._hardware)

        loading.check_pipelines(self._hardware)
        convert = partial(loading.prepared, hardware=self._hardware)

        def make(task: str) -> PipelineModel:
            where = torch.device(self._where)
            return PipelineModel(task, self._artifact, where, dtype, self._hardware.max_sequences, convert)

        self._pipelines = by_pipeline(self._model.tasks, make)
        self.device = self._described()

    def _described(self) -> str:
        from engine.runtimes.torch import loading

        dtype = str(loading.dtype(self._hardware)).removeprefix("torch.")
        quantized = "none" if self._hardware.kind == "mps" else self._hardware.quantization
        return f"torch:{self._where}:{dtype}" + ("" if quantized == "none" else f":{quantized}")

    async def aclose(self) -> None:
        """Stops what is under way and frees the model."""
        generator, self._generator, self._prompts = self._generator, None, None
        encoder, self._encoder = self._encoder, None
        loaded, self._pipelines = self._pipelines, {}
        for part in (generator, encoder, *dict.fromkeys(loaded.values())):
            if part is not None:
                await asyncio.to_thread(part.close)

    async def encode_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        """The prompt's tokens by the model's own chat template."""
        return await asyncio.to_thread(self._loaded_prompts().of_chat, messages)

    async def encode_text(self, text: str) -> Prompt:
        """The text's tokens as they are."""
        return await asyncio.to_thread(self._loaded_prompts().of_text, text)

    def _loaded_prompts(self) -> Prompts:
        if self._prompts is None:
            raise Internal("the model is not loaded")
        return self._prompts

    async def check(self, sampling: Sampling) -> None:
        """Makes the grammar of the sampling's schema. Raises InvalidRequest, and SetupError without llguidance."""
        await generating.check(self._generator, sampling)

    def generate(self, prompt: Prompt, sampling: Sampling, *, whole: bool = False) -> AsyncGenerator[TextDelta, None]:
        """The answer, piece by piece. Closing the iterator stops the generation at its next step."""
        return generating.answer(self._generator, prompt, sampling, context_length=self.context_length, whole=whole)

    async def embed(self, texts: list[str]) -> Embeddings:
        """One vector for each text, pooled and normalised as the model says."""
        if self._encoder is None:
            raise Internal("the model is not loaded")
        try:
            return await self._encoder.embed(texts)
        except RuntimeError as error:
            raise Internal(f"torch failed while encoding: {error}") from error

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        """The outputs, one for each input, as JSON has them."""
        pipeline = self._pipelines.get(task)
        if pipeline is None:
            raise Internal("the model is not loaded")
        return await pipeline.answer(ask)
