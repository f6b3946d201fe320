"""Plain text: one prompt a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.schemas.workload import TxtWorkloadSpec
from engine.workloads.lines import LongLine, open_bytes, read_lines
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source, find_file


def open_txt(spec: TxtWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Raises ConfigError for a path that can't be read."""
    path, live = find_file(spec.path)
    return Source("txt", spec.path, lambda: _read(path), form, spec.limit, path, live)


def _read(path: Path) -> Iterator[Record]:
    with open_bytes(path) as stream:
        for number, line in read_lines(stream):
            if line and not line.isspace():
                yield text_record(number, line)


def text_record(number: int, line: bytes) -> Record:
    """Returns the record of a line of text, with a problem if it is not UTF-8."""
    if isinstance(line, LongLine):
        return Record(number, line)
    try:
        return Record(number, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(number, line, f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8")
