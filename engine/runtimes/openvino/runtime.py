"""Runtime `openvino`: continuous batching, sentence embeddings, and the models of transformers' pipelines.

Needs openvino, openvino-genai and tokenizers. torch and transformers too, to export a generator's safetensors and for
pipelines; not for GGUF, OpenVINO's own files and embeddings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import gguf
from engine.artifacts.cache import Held
from engine.artifacts.resolve import Artifact
from engine.core.errors import Internal, SetupError
from engine.runtimes.generation import generator as generating
from engine.runtimes.generation import vision_chat
from engine.runtimes.generation.generator import Generator
from engine.runtimes.generation.prompts import (
    INLINE_CHARACTERS,
    GenAiPrompts,
    HubPrompts,
    Prompt,
    Prompts,
    VisualPrompts,
)
from engine.runtimes.memory import estimate as memory
from engine.schemas.hardware import OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.tasks import embedding
from engine.tasks.local_model import Embeddings, Sampling, TextDelta
from engine.tasks.pipelines import PIPELINES, Ask, formats

if TYPE_CHECKING:
    from engine.runtimes.embedding.encoder import SentenceEncoder
    from engine.runtimes.openvino.parts import OpenVinoParts
    from engine.runtimes.openvino.target import Target
    from engine.runtimes.pipelines.model import PipelineModel

log = logging.getLogger("engine.runtimes")

_AS_THEY_ARE = ("gguf", "openvino", "onnx", "torchscript")
"""Layouts whose weights keep the type that they have."""


class OpenVinoRuntime:
    """A model on an OpenVINO device."""

    def __init__(self, hardware: OpenVinoHardwareSpec, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        self._hardware = hardware
        self._model = model
        self._artifact = artifact
        self._made: Held | None = None
        """What was made of the artifact's files; it can't be evicted while it is here."""
        self._seed = seed
        self._generator: Generator | None = None
        self._encoder: SentenceEncoder | None = None
        self._prompts: Prompts | None = None
        self.reads_pictures = False
        self._pipelines: dict[str, PipelineModel] = {}
        self._parts: list[OpenVinoParts] = []
        """Of models that generate, and not with OpenVINO GenAI."""
        self.device = f"openvino:{hardware.device}"
        self.context_length = model.context_length or 0

    @classmethod
    def formats(cls, model: ModelSpec) -> tuple[str, ...]:
        """Encoders and pipelines from safetensors; generators from GGUF or IR, else exported from safetensors."""
        if embedding.TASKS.issuperset(model.tasks or ("chat",)):
            return ("safetensors",)
        if PIPELINES.keys() & set(model.tasks):
            return formats(model.tasks, "onnx")
        as_they_are = ("gguf", "openvino")
        others = not any(source.format in as_they_are for source in model.sources)
        return (*as_they_are, "safetensors") if others else as_they_are

    @property
    def steps(self) -> int:
        """Steps that the generation has computed, each for all sequences together."""
        return self._generator.steps if self._generator else 0

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        self._check_quantization()
        try:
            if embedding.TASKS.issuperset(self._model.tasks or ("chat",)):
                await asyncio.to_thread(self._load_encoder)
            elif PIPELINES.keys() & set(self._model.tasks):
                await asyncio.to_thread(self._load_pipelines)
            else:
                await asyncio.to_thread(self._load_generator)
        except ImportError as error:
            raise SetupError(
                f'hardware: openvino needs {error.name}. Next: pip install "ipfs-accelerate[openvino]"'
            ) from error
        except (RuntimeError, OSError, ValueError, KeyError) as error:  # OpenVINO raises RuntimeError for everything
            raise SetupError(
                f"model: OpenVINO can't load {self._model.name!r} from {self._artifact.path.name}: "
                f"{str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__}"
            ) from error

    def _check_quantization(self) -> None:
        kind = self._hardware.quantization
        if kind == "none" or self._model.tasks == ("embedding",):
            return
        if self._artifact.format in _AS_THEY_ARE:
            raise SetupError(
                f"hardware.quantization: a file of {self._artifact.format} keeps the type it has. "
                f"Next: hardware.quantization=none, or a source with safetensors only"
            )
        if kind == "int8_full" and not PIPELINES.keys() & set(self._model.tasks):
            raise _no_full_int8()

    def _load_generator(self) -> None:
        from engine.runtimes.openvino import gguf as openvino_gguf

        path = self._artifact.path
        if self._artifact.format == "gguf":
            path = gguf.find(path)
            own = gguf.context_length(path)
            if self._hardware.gguf_weights == "exact" and openvino_gguf.needs_repair(path):
                self._made = openvino_gguf.repaired(self._artifact, path)
                path = self._made.path
        else:
            shape = memory.shape_of(memory.config_of(self._artifact))
            own = shape.context if shape else None
        # The tokenizer cuts a prompt at the model's own length, so no longer context can be promised.
        self.context_length = min(self._model.context_length or own or 2048, own or 2**31)
        if self._artifact.format != "safetensors":
            self._open_pipeline(path)
            return
        if vision_chat.is_visual(self._artifact.path):
            self._load_visual()
            return
        from engine.runtimes.openvino import export

        try:
            self._made = export.exported(self._artifact, self._hardware.quantization)
            self._open_pipeline(self._made.path)
        except export.CannotExport as error:
            log.info("%s; its parts are converted one by one", error)
            self._load_parts()

    def _open_pipeline(self, path: Path) -> None:
        from engine.runtimes.openvino.generation import ContinuousGenerator, open_pipeline

        self.device = f"openvino:{self._hardware.device}{self._quantization()}"
        pipeline = open_pipeline(str(path), self._hardware)
        self._prompts = GenAiPrompts(pipeline.get_tokenizer())
        self._generator = ContinuousGenerator(pipeline, self._seed)

    def _load_parts(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._artifact.path, local_files_only=True)
        self._prompts = HubPrompts(tokenizer, self._model.name)
        self._generate_by_parts(AutoModelForCausalLM, tokenizer)

    def _load_visual(self) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = AutoProcessor.from_pretrained(self._artifact.path, local_files_only=True)
        self._prompts, self.reads_pictures = VisualPrompts(processor, self._model.name, torch.float32), True
        self._generate_by_parts(AutoModelForImageTextToText, processor.tokenizer)

    def _generate_by_parts(self, cls: Any, tokenizer: Any) -> None:
        """transformers' generation over graphs of the forward pass, in static batches."""
        from engine.runtimes.quiet import quiet
        from engine.runtimes.torch.static_batches import StaticGenerator

        with quiet():
            model = cls.from_pretrained(self._artifact.path, dtype="float32", local_files_only=True).eval()
        self._put_parts(model)
        self._generator = StaticGenerator(model, tokenizer, self._hardware.max_sequences, self._seed)

    def _load_encoder(self) -> None:
        from engine.runtimes.embedding import model as sentence_model
        from engine.runtimes.embedding.encoder import SentenceEncoder
        from engine.runtimes.openvino.encoder import OpenVinoForward, precision_of

        model = sentence_model.read(self._artifact.path, self._model.context_length)
        forward = OpenVinoForward(self._artifact.path, model, self._hardware)
        self._encoder = SentenceEncoder(self._artifact.path, model, forward)
        self.context_length = model.max_tokens
        self.device = f"openvino:{self._hardware.device}:{precision_of(self._hardware)}{self._quantization()}"

    def _load_pipelines(self) -> None:
        import torch

        from engine.runtimes.openvino.module import OpenVinoModule
        from engine.runtimes.pipelines.model import PipelineModel, by_pipeline

        target = self._target()

        def convert(model: Any) -> Any:
            if isinstance(model, Path):  # a graph as it is
                return target.compile(model)
            if hasattr(model, "can_generate") and model.can_generate():
                self._put_parts(model)
                return model
            return OpenVinoModule(model, target)

        def make(task: str) -> PipelineModel:
            sequences = self._hardware.max_sequences
            return PipelineModel(task, self._artifact, torch.device("cpu"), torch.float32, sequences, convert)

        self._pipelines = by_pipeline(self._model.tasks, make)
        self.device = f"openvino:{self._hardware.device}:{target.precision}{self._quantization()}"

    def _put_parts(self, model: Any) -> None:
        """The forward passes of a model that generates, on OpenVINO. Raises SetupError."""
        from engine.runtimes.openvino.parts import OpenVinoParts

        if self._hardware.quantization == "int8_full":
            raise _no_full_int8()
        self._parts.append(OpenVinoParts(model, self._target()))

    def _target(self) -> Target:
        """Where and how graphs are computed."""
        from engine.runtimes.openvino.encoder import precision_of
        from engine.runtimes.openvino.target import Target

        properties = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if self._hardware.threads is not None and self._hardware.device == "CPU":
            properties["INFERENCE_NUM_THREADS"] = str(self._hardware.threads)
        precision = precision_of(self._hardware)
        return Target(self._hardware.device, precision, properties, self._hardware.quantization)

    def _quantization(self) -> str:
        """As the device's name says it."""
        return "" if self._hardware.quantization == "none" else f":{self._hardware.quantization}"

    async def aclose(self) -> None:
        """Stops what is under way and frees the model."""
        generator, self._generator, self._prompts = self._generator, None, None
        encoder, self._encoder = self._encoder, None
        loaded, self._pipelines = self._pipelines, {}
        for part in (generator, encoder, *dict.fromkeys(loaded.values())):
            if part is not None:
                await asyncio.to_thread(part.close)
        self._made = None

    async def encode_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        """The prompt's tokens by the model's own chat template."""
        size = INLINE_CHARACTERS if self.reads_pictures else sum(len(message["content"]) for message in messages)
        return await self._encoded(size, self._loaded_prompts().of_chat, messages)

    async def encode_text(self, text: str) -> Prompt:
        """The text's tokens as they are."""
        return await self._encoded(len(text), self._loaded_prompts().of_text, text)

    async def _encoded(self, size: int, call: Any, argument: Any) -> Prompt:
        prompt: Prompt = call(argument) if size < INLINE_CHARACTERS else await asyncio.to_thread(call, argument)
        return prompt

    def _loaded_prompts(self) -> Prompts:
        if self._prompts is None:
            raise Internal("the model is not loaded")
        return self._prompts

    async def check(self, sampling: Sampling) -> None:
        """Makes the grammar of the sampling's schema. Raises InvalidRequest."""
        await generating.check(self._generator, sampling)

    def generate(self, prompt: Prompt, sampling: Sampling, *, whole: bool = False) -> AsyncGenerator[TextDelta, None]:
        """The answer, piece by piece. Closing the iterator stops the generation at its next step."""
        return generating.answer(
            self._generator,
            prompt,
            sampling,
            context_length=self.context_length,
            whole=whole,
            verify=self._check_parts,
        )

    async def embed(self, texts: list[str]) -> Embeddings:
        """One vector for each text, pooled and normalised as the model says."""
        if self._encoder is None:
            raise Internal("the model is not loaded")
        try:
            return await self._encoder.embed(texts)
        except RuntimeError as error:
            raise Internal(f"openvino failed while encoding: {error}") from error

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        """The outputs, one for each input, as JSON has them."""
        pipeline = self._pipelines.get(task)
        if pipeline is None:
            raise Internal("the model is not loaded")
        outputs = await pipeline.answer(ask)
        self._check_parts()
        return outputs

    def _check_parts(self) -> None:
        for parts in self._parts:
            parts.check()


def _no_full_int8() -> SetupError:
    return SetupError(
        "hardware.quantization: int8_full is for models that do not generate. Next: int8 or int4, of the weights only"
    )
