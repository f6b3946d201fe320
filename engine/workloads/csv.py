"""Comma-separated values with a header (RFC 4180; cells may hold line ends)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ConfigError
from engine.workloads.lines import LINE_LIMIT_BYTES, LongLine, open_bytes, read_lines
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source, find_file
from engine.workloads.table import object_of, text_column
from schemas.workload import CsvWorkloadSpec


def open_csv(spec: CsvWorkloadSpec, form: Form) -> Source:
    """Raises ConfigError for a path that can't be read, or a header without a column for the text."""
    path, live = find_file(spec.path)
    # The module's limit, 128 KiB a cell, is global to the process and too small for prompts.
    csv.field_size_limit(LINE_LIMIT_BYTES)
    if not live:
        _header(_reader(path, spec.delimiter), spec)
    return Source("csv", spec.path, lambda: _read(path, spec), form, spec.limit, path, live)


def _reader(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Numbered rows of cells, by the line a row ends on; a text in place of the cells says what is wrong."""
    with open_bytes(path) as stream:
        # surrogateescape: a cell that is not UTF-8 must spoil its row, not the file
        texts = (_text(line) for _, line in read_lines(stream))
        reader = csv.reader(texts, delimiter=delimiter, strict=True)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"not valid CSV: {error}; check the quotes of this row and those before it"
                continue
            if cells:
                yield reader.line_num, cells


def _text(line: bytes) -> str:
    if isinstance(line, LongLine):
        return "\0"  # refused by the csv module, so the row is an invalid one
    return line.decode("utf-8", "surrogateescape") + "\n"


def _header(rows: Iterator[tuple[int, list[str] | str]], spec: CsvWorkloadSpec) -> tuple[list[str], str | None]:
    _, names = next(rows, (1, "it is empty"))
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
    for line, cells in rows:
        if isinstance(cells, str):
            yield Record(line, "", cells)
        elif len(cells) != len(names):
            text = spec.delimiter.join(cells).encode("utf-8", "surrogateescape")
            yield Record(line, text, f"{len(cells)} cells, but the header has {len(names)}; quote cells with commas")
        elif not all(cell.isascii() or _is_text(cell) for cell in cells):
            text = spec.delimiter.join(cells).encode("utf-8", "surrogateescape")
            yield Record(line, text, "not UTF-8; save the file as UTF-8")
        else:
            yield Record(line, object_of(dict(zip(names, cells, strict=True)), column))


def _is_text(cell: str) -> bool:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
