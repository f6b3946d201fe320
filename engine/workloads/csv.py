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

_KEPT_BYTES = 200
_KEPT_LINES = 8
"""The dead letter of a row that is too long has this many of its first lines, of as many bytes each."""


def open_csv(spec: CsvWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Raises ConfigError for a path that can't be read, or a header without a column for the text."""
    path, live = find_file(spec.path)
    # The module's limit, 128 KiB a cell, is global to the process and too small for prompts.
    csv.field_size_limit(LINE_LIMIT_BYTES)
    if not live:
        _header(_reader(path, spec.delimiter), spec, form)
    return Source("csv", spec.path, lambda: _read(path, spec, form), form, spec.limit, path, live)


class _Row:
    """The lines of the current row. If the row is too long, the csv module gets only its quotes, so that it finds the
    row's end; half of its text would be wrong."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        """Bytes of all its lines, with those that are not kept."""
        self._quoted = False
        """True if the next line begins inside a quoted cell."""

    def clear(self) -> None:
        """Starts a new row."""
        self.lines.clear()
        self.size, self._quoted = 0, False

    def add(self, line: bytes) -> str:
        """Takes a line; returns what the csv module gets in its place."""
        long = isinstance(line, LongLine)
        self.size += (line.size_bytes if isinstance(line, LongLine) else len(line)) + 1
        turns = bool((line.quotes if isinstance(line, LongLine) else line.count(b'"')) % 2)
        quoted, self._quoted = self._quoted, self._quoted != turns
        if not long and self.size <= LINE_LIMIT_BYTES:
            self.lines.append(line)
            # surrogateescape: a cell that is not UTF-8 must spoil its row, not the file.
            return line.decode("utf-8", "surrogateescape") + "\n"
        self.lines = [each[:_KEPT_BYTES] for each in (*self.lines[:_KEPT_LINES], line)][:_KEPT_LINES]
        return '"' if turns else "" if quoted else "x"

    @property
    def problem(self) -> str | None:
        """Returns the reason if the row is too long."""
        if self.size <= LINE_LIMIT_BYTES:
            return None
        limit = LINE_LIMIT_BYTES // (1024 * 1024)
        return f"{self.size} bytes in one row, at most {limit} MiB; split the row"


def _reader(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str, bytes]]:
    """Rows: the line a row ends on, its cells (or a text that says what is wrong), and its lines as written."""
    row = _Row()
    with open_bytes(path) as stream:
        lines = (row.add(line) for _, line in read_lines(stream, LINE_LIMIT_BYTES))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            cells: list[str] | str
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cells = f"not valid CSV: {error}; check the quotes of this row and those before it"
            if row.problem is not None:
                cells = row.problem
            if cells:
                yield reader.line_num, cells, b"\n".join(row.lines)
            row.clear()


def _header(
    rows: Iterator[tuple[int, list[str] | str, bytes]], spec: CsvWorkloadSpec, form: Form
) -> tuple[list[str], str | None]:
    _, names, _ = next(rows, (1, "it is empty", b""))
    if isinstance(names, str):
        raise ConfigError(f"workload.path: {spec.path} has no header: {names}")
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"workload.path: {spec.path} has two columns {twice!r}; rename one of them")
    return names, text_column(names, spec.column, spec.path, form)


def _read(path: Path, spec: CsvWorkloadSpec, form: Form) -> Iterator[Record]:
    rows = _reader(path, spec.delimiter)
    names, column = _header(rows, spec, form)
    for line, cells, written in rows:
        if isinstance(cells, str):
            yield Record(line, _as_text(written), cells)
        elif len(cells) != len(names):
            problem = f"{len(cells)} cells, but the header has {len(names)}; quote cells that hold {spec.delimiter!r}"
            yield Record(line, _as_text(written), problem)
        elif not all(cell.isascii() or _is_text(cell) for cell in cells):
            yield Record(line, written, "not UTF-8; save the file as UTF-8")
        else:
            yield Record(line, object_of(dict(zip(names, cells, strict=True)), column, form))


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
