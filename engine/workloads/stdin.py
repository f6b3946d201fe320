"""Standard input, as JSON Lines or text."""

from __future__ import annotations

from collections.abc import Iterator

from engine.schemas.workload import StdinWorkloadSpec
from engine.workloads.lines import read_lines
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source
from engine.workloads.txt import text_record


def open_stdin(spec: StdinWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Reads rows as they arrive; they can't be read a second time."""
    return Source("stdin", "stdin", lambda: _read(spec.format), form, spec.limit, live=True)


def _read(format: str) -> Iterator[Record]:
    # A reader of its own on descriptor 0: sys.stdin's lock, held by a thread that waits for input, would abort the
    # interpreter at exit.
    with open(0, "rb", closefd=False) as stream:
        for number, line in read_lines(stream):
            if not line or line.isspace():
                continue
            if format == "jsonl" or (format == "auto" and line.lstrip().startswith(b"{")):
                yield Record(number, line)
            else:
                yield text_record(number, line)
