"""Loads the pipeline for a task: transformers' own, or one of ours, from any layout that its model comes in."""

from __future__ import annotations

from typing import Any

import torch
from transformers import pipelines

from engine.artifacts.resolve import Artifact
from engine.runtimes.pipelines.catalog import own
from engine.runtimes.quiet import quiet
from engine.tasks.pipelines import PIPELINES


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
            pipe = pipelines.pipeline(
                task_name, model=str(artifact.path), device=device, dtype=kind, pipeline_class=mine
            )
    if isinstance(pipe.model, torch.nn.Module):
        pipe.model.eval()
    return pipe
