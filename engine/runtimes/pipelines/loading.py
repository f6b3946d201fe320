"""Loads the pipeline for a task: transformers' own, or one of ours, from any layout of its model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, pipelines

from engine.artifacts.resolve import Artifact
from engine.runtimes import checkpoint
from engine.runtimes.pipelines.catalog import own
from engine.runtimes.quiet import quiet
from engine.tasks.pipelines import PIPELINES

_PARTS = ("tokenizer", "feature_extractor", "image_processor", "video_processor", "processor")
"""Parts of a pipeline that prepare its inputs."""


def load(task: str, artifact: Artifact, device: torch.device, kind: torch.dtype) -> Any:
    """The pipeline, its model on `device` with weights as `kind`. Raises OSError, ValueError, RuntimeError or
    ImportError."""
    name = PIPELINES[task].pipeline
    mine = own(name)
    with quiet():
        if artifact.format == "ctranslate2":
            from engine.runtimes.pipelines import whisper_ct2

            model, tokenizer, extractor = whisper_ct2.load(artifact.path, kind)
            pipe = mine(model=model, tokenizer=tokenizer, feature_extractor=extractor, device=device)
        elif artifact.format == "state_dict":
            from engine.runtimes.pipelines import efficientnet_lite

            pipe = efficientnet_lite.load(artifact.path, device, kind)
        elif mine is not None and not hasattr(mine, "transformers_task"):
            pipe = mine.load(artifact.path, device, kind)
        else:
            task_name = mine.transformers_task if mine else name
            pipe = _hub_pipeline(task_name, artifact.path, device, kind, mine)
    if isinstance(pipe.model, torch.nn.Module):
        pipe.model.eval()
    return pipe


def _hub_pipeline(task: str, folder: Path, device: torch.device, kind: torch.dtype, cls: Any) -> Any:
    """Makes transformers' pipeline for a task as the class `cls`; None: transformers' own class."""
    known = pipelines.check_task(task)[1]
    cls = cls or getattr(transformers, known["impl"].rpartition(".")[2])
    parts = {name: str(folder) for name in _PARTS if getattr(cls, f"_load_{name}") is not False}
    parts["config"] = str(folder)  # transformers looks for the name of the model there
    model = _hub_model(known["pt"], folder, kind, unused=("pooler.",) if task == "feature-extraction" else ())
    return pipelines.pipeline(task, model=model, device=device, dtype=kind, pipeline_class=cls, **parts)


def _hub_model(classes: Iterable[Any], folder: Path, kind: torch.dtype, unused: tuple[str, ...]) -> Any:
    """Loads the model as the first class of the task that its config is made for, else as the class that the config
    names."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    fitting = [each for each in classes if type(config) in each._model_mapping]
    fitting += [getattr(transformers, name) for name in config.architectures or () if hasattr(transformers, name)]
    if not fitting:
        raise ValueError(f"a model of type {config.model_type!r} can't do this task")
    return checkpoint.load(fitting[0], folder, unused=unused, dtype=kind)
