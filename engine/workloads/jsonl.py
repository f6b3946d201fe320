"""JSON Lines, plain or gzip: OpenAI batch files and the short forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.schemas.workload import JsonlWorkloadSpec
from engine.workloads.lines import open_bytes, read_lines
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source, find_file


def open_jsonl(spec: JsonlWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Raises ConfigError for a path that can't be read."""
    path, live = find_file(spec.path)
    return Source("jsonl", spec.path, lambda: read_jsonl(path), form, spec.limit, path, live)


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yields every line that is not blank."""
    with open_bytes(path) as stream:
        for number, line in read_lines(stream):
            if line and not line.isspace():
                yield Record(number, line)
