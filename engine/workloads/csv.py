"""Comma-separated values with a header (RFC 4180; cells may hold line ends)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from engine.core.errors import ConfigError
from engine.schemas.workload import CsvWorkloadSpec
from engine.workloads.lines import LINE_LIMIT_BYTES, LongLine, open_bytes, read_lines
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source, find_file
from engine.workloads.table import object_of, text_column


def open_csv(spec: CsvWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Raises ConfigError for a path that can't be read, or a header without a column for the text."""
    path, live = find_file(spec.path)
    # The module's limit, 128 KiB a cell, is global to the process and too small for prompts.
    csv.field_size_limit(LINE_LIMIT_BYTES)
    if not live:
        _header(_reader(path, spec.delimiter), spec)
    return Source("csv", spec.path, lambda: _read(path, spec), form, spec.limit, path, live)


def _reader(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str, bytes]]:
    """Rows: the line a row ends on, its cells (or a text that says what is wrong), and its lines as written."""
    taken: list[bytes] = []

    def texts(lines: Iterator[tuple[int, bytes]]) -> Iterator[str]:
        for _, line in lines:
            taken.append(line)
            # A line that is too long becomes one that the csv module refuses. surrogateescape: a cell that is not
            # UTF-8 must spoil its row, not the file.
            yield "\0" if isinstance(line, LongLine) else line.decode("utf-8", "surrogateescape") + "\n"

    with open_bytes(path) as stream:
        reader = csv.reader(texts(read_lines(stream)), delimiter=delimiter, strict=True)
        while True:
            cells: list[str] | str
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cells = f"not valid CSV: {error}; check the quotes of this row and those before it"
            if cells:
                yield reader.line_num, cells, b"\n".join(taken)
            taken.clear()


def _header(rows: Iterator[tuple[int, list[str] | str, bytes]], spec: CsvWorkloadSpec) -> tuple[list[str], str | None]:
    _, names, _ = next(rows, (1, "it is empty", b""))
    if isinstance(names, str):
        raise ConfigError(f"workload.path: {spec.path} has no header: {names}")
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"workload.path: {spec.path} has two columns {twice!r}; rename one of them")
    return names, text_column(names, spec.column, spec.path)


def _read(path: Path, spec: CsvWorkloadSpec) -> Iterator[Record]:
    rows = _reader(path, spec.delimiter)
    names, column = _header(rows, spec)
    for line, cells, written in rows:
        if isinstance(cells, str):
            yield Record(line, _as_text(written), cells)
        elif len(cells) != len(names):
            problem = f"{len(cells)} cells, but the header has {len(names)}; quote cells that hold {spec.delimiter!r}"
            yield Record(line, _as_text(written), problem)
        elif not all(cell.isascii() or _is_text(cell) for cell in cells):
            yield Record(line, written, "not UTF-8; save the file as UTF-8")
        else:
            yield Record(line, object_of(dict(zip(names, cells, strict=True)), column))


def _as_text(written: bytes) -> str | bytes:
    try:
        return written.decode("utf-8")
    except UnicodeDecodeError:
        return written


def _is_text(cell: str) -> bool:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
