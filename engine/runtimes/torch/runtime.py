"""Runtime `torch`: generation, sentence embeddings and the tasks of transformers' pipelines, on the CPU or an NVIDIA
GPU."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.artifacts.resolve import Artifact
from engine.runtimes.base import BackendRuntime
from engine.runtimes.generation import vision_chat
from engine.runtimes.generation.generator import Generator
from engine.runtimes.generation.prompts import HubPrompts, VisualPrompts
from engine.runtimes.memory import estimate as memory
from engine.schemas.model import ModelSpec
from engine.tasks import embedding
from engine.tasks.pipelines import PIPELINES, formats

if TYPE_CHECKING:
    from engine.runtimes.pipelines.model import PipelineModel
    from engine.runtimes.torch.loading import TorchHardware


class TorchRuntime(BackendRuntime):
    """A model in torch."""

    name = "torch"
    extra = "local"

    def __init__(self, hardware: TorchHardware, model: ModelSpec, artifact: Artifact, seed: int) -> None:
        super().__init__(hardware.kind, model, artifact, seed)
        self._hardware = hardware
        self._where = f"cuda:{hardware.device}" if hardware.kind == "cuda" else hardware.kind
        self.device = f"torch:{self._where}"

    @classmethod
    def formats(cls, model: ModelSpec) -> tuple[str, ...]:
        """Returns the layouts: safetensors; for generators also GGUF, if the package gguf is installed."""
        if PIPELINES.keys() & set(model.tasks):
            return formats(model.tasks, "torchscript")
        if embedding.TASKS.issuperset(model.tasks or ("chat",)) or importlib.util.find_spec("gguf") is None:
            return ("safetensors",)
        return ("safetensors", "gguf")

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
