"""The shipped rows: short questions for models that chat, sentences for those that embed."""

from __future__ import annotations

from pathlib import Path

from engine.schemas.workload import SampleWorkloadSpec
from engine.workloads.jsonl import read_jsonl
from engine.workloads.rows import Form
from engine.workloads.source import Source

SAMPLES = Path(__file__).with_name("samples")


def open_sample(spec: SampleWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Returns the sample that fits the task."""
    path = SAMPLES / ("embedding.jsonl" if form.task == "embedding" else "chat.jsonl")
    return Source("sample", path.name, lambda: read_jsonl(path), form, spec.limit, path)
