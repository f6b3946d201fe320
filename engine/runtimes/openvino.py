"""Runtime `openvino`: continuous batching from GGUF or OpenVINO IR, sentence embeddings from safetensors.

Needs openvino, openvino-genai and tokenizers; not torch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import Artifact, default_cache, gguf
from engine.errors import Internal, SetupError, TooLong
from engine.runtime import Embeddings, Piece, Sampling
from engine.runtimes.delivery import Delivery
from engine.tasks import embedding
from engine.tasks.pipelines import PIPELINES, Ask, formats
from schemas.hardware import OpenVinoHardwareSpec
from schemas.model import ModelSpec

if TYPE_CHECKING:
    from engine.runtimes.openvino_encoder import Encoder
    from engine.runtimes.openvino_generation import Generator
    from engine.runtimes.openvino_parts import OpenVinoParts
    from engine.runtimes.pipeline_model import PipelineModel

INLINE_CHARACTERS = 4000
"""A longer prompt is tokenised on a thread; a shorter one costs less than the way there."""


class _Prompt:
    """A prompt's tokens: a tensor of shape (1, length)."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return int(self.tensor.shape[1])


class OpenVinoRuntime:
    """A model on an OpenVINO device."""

    reads_pictures = False

    def __init__(self, hardware: OpenVinoHardwareSpec, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        self._hardware = hardware
        self._model = model
        self._artifact = artifact
        self._seed = seed
        self._generator: Generator | None = None
        self._encoder: Encoder | None = None
        self._tokenizer: Any = None
        self._pipelines: dict[str, PipelineModel] = {}
        self._parts: list[OpenVinoParts] = []
        """Of the pipelines' models that generate."""
        self.device = f"openvino:{hardware.device}"
        self.context_length = model.context_length or 0

    @classmethod
    def formats(cls, model: ModelSpec) -> tuple[str, ...]:
        """Encoders and pipelines from safetensors; generators from GGUF or OpenVINO IR."""
        if embedding.TASKS.issuperset(model.tasks or ("chat",)):
            return ("safetensors",)
        if PIPELINES.keys() & set(model.tasks):
            return formats(model.tasks, "onnx")
        return ("gguf", "openvino")

    @property
    def steps(self) -> int:
        """Steps that the generation has computed, each for all sequences together."""
        return self._generator.steps if self._generator else 0

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        if self._hardware.quantization != "none" and self._model.tasks != ("embedding",):
            raise SetupError(
                f"hardware.quantization: on OpenVINO {self._hardware.quantization} is for embedding models; a GGUF or "
                f"OpenVINO file keeps the type it has. Next: hardware.quantization=none and a file of that type, "
                f"or hardware=cpu"
            )
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

    def _load_generator(self) -> None:
        from engine.runtimes import openvino_gguf
        from engine.runtimes.openvino_generation import Generator, open_pipeline

        path = self._artifact.path
        if self._artifact.format == "gguf":
            path = gguf.find(path)
            own = gguf.context_length(path)
            if self._hardware.gguf_weights == "exact" and openvino_gguf.needs_repair(path):
                path = openvino_gguf.repaired(path, default_cache(), self._artifact.cid)
        else:
            own = _ir_context_length(path)
        # The tokenizer cuts a prompt at the model's own length, so no longer context can be promised.
        self.context_length = min(self._model.context_length or own or 2048, own or 2**31)
        pipeline = open_pipeline(str(path), self._hardware)
        self._tokenizer = pipeline.get_tokenizer()
        self._generator = Generator(pipeline, self._seed)

    def _load_encoder(self) -> None:
        from engine.runtimes import sentence_model
        from engine.runtimes.openvino_encoder import Encoder

        model = sentence_model.read(self._artifact.path, self._model.context_length)
        self._encoder = Encoder(self._artifact.path, model, self._hardware)
        self.context_length = model.max_tokens
        quantized = "" if self._hardware.quantization == "none" else f":{self._hardware.quantization}"
        self.device = f"openvino:{self._hardware.device}:{self._encoder.precision}{quantized}"

    def _load_pipelines(self) -> None:
        import openvino as ov
        import torch

        from engine.runtimes.openvino_encoder import precision_of
        from engine.runtimes.openvino_module import OpenVinoModule
        from engine.runtimes.openvino_parts import OpenVinoParts
        from engine.runtimes.pipeline_model import PipelineModel, by_pipeline

        precision = precision_of(ov.Core(), self._hardware)
        properties = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if self._hardware.threads is not None and self._hardware.device == "CPU":
            properties["INFERENCE_NUM_THREADS"] = str(self._hardware.threads)

        def convert(model: Any) -> Any:
            if isinstance(model, Path):  # a graph as it is
                told = {**properties, "INFERENCE_PRECISION_HINT": precision}
                return ov.Core().compile_model(model, self._hardware.device, told)
            if hasattr(model, "can_generate") and model.can_generate():
                self._parts.append(OpenVinoParts(model, self._hardware.device, properties, precision))
                return model
            return OpenVinoModule(model, self._hardware.device, properties, precision)

        def make(task: str) -> PipelineModel:
            sequences = self._hardware.max_sequences
            return PipelineModel(task, self._artifact, torch.device("cpu"), torch.float32, sequences, convert)

        self._pipelines = by_pipeline(self._model.tasks, make)
        self.device = f"openvino:{self._hardware.device}:{precision}"

    async def aclose(self) -> None:
        """Stops what is under way and frees the model."""
        generator, self._generator, self._tokenizer = self._generator, None, None
        encoder, self._encoder = self._encoder, None
        loaded, self._pipelines = self._pipelines, {}
        for part in (generator, encoder, *dict.fromkeys(loaded.values())):
            if part is not None:
                await asyncio.to_thread(part.close)

    async def encode_chat(self, messages: list[dict[str, Any]]) -> _Prompt:
        """The prompt's tokens by the model's own chat template."""
        size = sum(len(message["content"]) for message in messages)
        return await self._encode(size, self._apply_template, messages)

    async def encode_text(self, text: str) -> _Prompt:
        """The text's tokens as they are."""
        return await self._encode(len(text), self._tokenize, text)

    async def _encode(self, size: int, call: Any, argument: Any) -> _Prompt:
        tensor = call(argument) if size < INLINE_CHARACTERS else await asyncio.to_thread(call, argument)
        return _Prompt(tensor)

    def _apply_template(self, messages: list[dict[str, Any]]) -> Any:
        return self._tokenize(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def _tokenize(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False).input_ids

    async def generate(
        self, prompt: _Prompt, sampling: Sampling, *, whole: bool = False
    ) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece. Closing the iterator stops the generation at its next step."""
        if self._generator is None:
            raise Internal("the model is not loaded")
        if len(prompt) >= self.context_length:
            raise TooLong(f"the prompt has {len(prompt)} tokens or more, and the model reads {self.context_length}")
        delivery = Delivery(whole=whole and not sampling.stop)
        self._generator.submit(prompt.tensor, sampling, delivery)
        try:
            while True:
                piece = await delivery.next()
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            delivery.cancelled = True

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
        for parts in self._parts:
            parts.check()
        return outputs


def _ir_context_length(folder: Path) -> int | None:
    config = folder / "config.json"
    if not config.is_file():
        return None
    length = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings")
    return int(length) if length else None
