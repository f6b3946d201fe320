"""The shared part of our pipelines: loads them, and generates with their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from transformers import GenerationConfig, Pipeline

from engine.runtimes import checkpoint

_PARTS = {
    "tokenizer": "AutoTokenizer",
    "image_processor": "AutoImageProcessor",
    "feature_extractor": "AutoFeatureExtractor",
    "processor": "AutoProcessor",
}


class OwnPipeline(Pipeline):  # type: ignore[misc]  # transformers has no types
    """A pipeline for one forward pass a row, or for `generate`."""

    models: ClassVar[tuple[str, ...]] = ()
    """transformers' classes for models of this task, the likeliest first."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names of weights that the task does not use."""
    parts: ClassVar[tuple[str, ...]] = ("tokenizer",)
    """The parts that prepare its inputs."""
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    @classmethod
    def load(cls, folder: Path, device: torch.device, kind: torch.dtype) -> Any:
        """Loads the pipeline with the model in `folder`. Raises OSError, ValueError, RuntimeError or ImportError."""
        parts = {
            name: getattr(transformers, _PARTS[name]).from_pretrained(folder, local_files_only=True)
            for name in cls.parts
        }
        return cls(model=cls._model(folder, kind), device=device, **parts)

    @classmethod
    def _model(cls, folder: Path, kind: torch.dtype) -> Any:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        for name in cls.models:
            auto = getattr(transformers, name)
            if type(config) in auto._model_mapping:
                return checkpoint.load(auto, folder, unused=cls.unused, dtype=kind)
        raise ValueError(
            f"a model of type {config.model_type!r} can't do this task; expected {' or '.join(cls.models)}"
        )

    def generated(self, inputs: dict[str, Any], options: dict[str, Any]) -> Any:
        """Generates for `inputs`; `seed` in `options` seeds it."""
        options = dict(options)
        seed = options.pop("seed", None)
        if seed is not None:
            torch.manual_seed(seed)
        return self.model.generate(**inputs, **self._prepare_generate_kwargs(options))
