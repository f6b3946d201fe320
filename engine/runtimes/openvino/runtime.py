"""Runtime `openvino`: continuous batching, sentence embeddings, and the models of transformers' pipelines.

Needs openvino, openvino-genai and tokenizers. torch and transformers too, to export a generator's safetensors and for
pipelines; not for GGUF, OpenVINO's own files and embeddings.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import gguf
from engine.artifacts.cache import Held
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes import checkpoint
from engine.runtimes.base import BackendRuntime
from engine.runtimes.generation import vision_chat
from engine.runtimes.generation.prompts import (
    INLINE_CHARACTERS,
    GenAiPrompts,
    HubPrompts,
    VisualPrompts,
)
from engine.runtimes.memory import estimate as memory
from engine.schemas.hardware import OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.tasks import embedding
from engine.tasks.pipelines import PIPELINES, formats

if TYPE_CHECKING:
    from engine.runtimes.openvino.parts import OpenVinoParts
    from engine.runtimes.openvino.target import Target
    from engine.runtimes.pipelines.model import PipelineModel

log = logging.getLogger("engine.runtimes")

_AS_THEY_ARE = ("gguf", "openvino", "onnx", "torchscript")
"""Layouts whose weights keep their type."""


class OpenVinoRuntime(BackendRuntime):
    """A model on an OpenVINO device."""

    name = "OpenVINO"
    extra = "openvino"
    inline_characters = INLINE_CHARACTERS
    error_line = -1

    def __init__(self, hardware: OpenVinoHardwareSpec, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        super().__init__("openvino", model, artifact, seed)
        self._hardware = hardware
        self._made: Held | None = None
        """Files made of the artifact's; they can't be evicted while this is set."""
        self._parts: list[OpenVinoParts] = []
        """Graphs of models that generate without OpenVINO GenAI."""
        self.device = f"openvino:{hardware.device}"

    @classmethod
    def formats(cls, model: ModelSpec) -> tuple[str, ...]:
        """Returns the layouts: encoders and pipelines from safetensors; generators from GGUF or IR, or exported from
        safetensors."""
        if embedding.TASKS.issuperset(model.tasks or ("chat",)):
            return ("safetensors",)
        if PIPELINES.keys() & set(model.tasks):
            return formats(model.tasks, "onnx")
        as_they_are = ("gguf", "openvino")
        others = not any(source.format in as_they_are for source in model.sources)
        return (*as_they_are, "safetensors") if others else as_they_are

    async def start(self) -> None:
        """Loads the model. Raises SetupError."""
        self._check_quantization()
        await super().start()

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
        # The tokenizer cuts a prompt at the model's own length, which bounds the context.
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
        self._prompts = GenAiPrompts(pipeline.get_tokenizer(), self._model.name)
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
        """Makes a generator of transformers over graphs of the forward pass, in static batches."""
        from engine.runtimes.quiet import quiet
        from engine.runtimes.torch.static_batches import StaticGenerator

        with quiet():
            model = checkpoint.load(cls, self._artifact.path, dtype="float32").eval()
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
            if isinstance(model, Path):  # a ready graph
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
        """Puts the forward passes of a model that generates on OpenVINO. Raises SetupError."""
        from engine.runtimes.openvino.parts import OpenVinoParts

        if self._hardware.quantization == "int8_full":
            raise _no_full_int8()
        self._parts.append(OpenVinoParts(model, self._target()))

    def _target(self) -> Target:
        """Returns the device and precision of the graphs."""
        from engine.runtimes.openvino.encoder import precision_of
        from engine.runtimes.openvino.target import Target

        properties = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if self._hardware.threads is not None and self._hardware.device == "CPU":
            properties["INFERENCE_NUM_THREADS"] = str(self._hardware.threads)
        precision = precision_of(self._hardware)
        return Target(self._hardware.device, precision, properties, self._hardware.quantization)

    def _quantization(self) -> str:
        """Returns the device's own name."""
        return "" if self._hardware.quantization == "none" else f":{self._hardware.quantization}"

    async def aclose(self) -> None:
        """Cancels the requests in flight and frees the model."""
        await super().aclose()
        self._made = None

    def _verify(self) -> None:
        for parts in self._parts:
            parts.check()


def _no_full_int8() -> SetupError:
    return SetupError(
        "hardware.quantization: int8_full is for models that do not generate. Next: int8 or int4, of the weights only"
    )
