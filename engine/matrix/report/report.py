"""Writes the results of the matrix: a page for the browser, Markdown, CSV, JSON, and the changes since the last run."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.core.atomic_file import write_atomic
from engine.matrix.report import record
from engine.matrix.report.record import MEANING, Cell, Row
from engine.matrix.report.summary import Change, Count, changes, counts

_COLUMNS = ("name", "group", "model_type", "checkpoint", "model", "parameters", "level", "processors", "note")
_CELL_COLUMNS = ("status", "route", "precision", "load_s", "run_s", "peak_bytes", "error", "batch_sizes", "generates",
                 "tokens_equal", "other_precisions", "reason", "fix")  # fmt: skip


def write(out: Path, rows: Mapping[str, Row], hardware: Sequence[str], previous: Path, facts: Mapping[str, str]) -> str:
    """Writes matrix.html, .md, .csv, .json and diff.md into `out`; returns a few lines for a terminal.

    `previous`: the rows of the last run, which need not be there. Raises OutputError.
    """
    ordered = sorted(rows.values(), key=lambda row: row.name.lower())
    known = [name for name in hardware if any(name in row.cells for row in ordered)]
    found = counts(rows, known)
    differences = changes(record.read(previous), rows, known)
    view = {
        "rows": ordered,
        "hardware": known,
        "counts": found,
        "changes": differences,
        "compared": previous.exists(),
        "facts": dict(facts),
        "meaning": MEANING,
    }
    write_atomic(out / "matrix.json", _json(view))
    write_atomic(out / "matrix.csv", _csv(ordered, known).encode())
    write_atomic(out / "matrix.md", _render("matrix.md.j2", view).encode())
    write_atomic(out / "matrix.html", _render("matrix.html.j2", {**view, "data": _page_data(ordered, known)}).encode())
    write_atomic(out / "diff.md", _render("diff.md.j2", view).encode())
    return "\n".join([*(_line(count) for count in found), _changed(differences, previous.exists())])


def _line(count: Count) -> str:
    statuses = ", ".join(f"{number} {status}" for status, number in count.statuses.items())
    tokens = f"; the same tokens: {count.same_tokens} of {count.generative}" if count.generative else ""
    return f"{count.hardware}: {count.ok} of {count.tried} run ({count.share}): {statuses}{tokens}"


def _changed(differences: Sequence[Change], compared: bool) -> str:
    if not compared:
        return "no earlier run to compare with"
    better = sum(change.better for change in differences)
    return f"since the last run: {better} now run, {len(differences) - better} changed otherwise"


def _json(view: Mapping[str, Any]) -> bytes:
    summary = [{**msgspec.to_builtins(count), "ok": count.ok, "share": count.share} for count in view["counts"]]
    record_ = {"facts": view["facts"], "summary": summary, "changes": view["changes"], "rows": view["rows"]}
    return msgspec.json.format(msgspec.json.encode(record_), indent=1) + b"\n"


def _csv(rows: Sequence[Row], hardware: Sequence[str]) -> str:
    """Yields one line for each row and hardware; lists are joined by spaces."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, "hardware", *_CELL_COLUMNS])
    for row in rows:
        own = [_plain(getattr(row, name)) for name in _COLUMNS]
        for name in hardware:
            if name in row.cells:
                writer.writerow([*own, name, *(_plain(getattr(row.cells[name], column)) for column in _CELL_COLUMNS)])
    return stream.getvalue()


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, dict):
        return " ".join(f"{key}={item:.3g}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return value


def _page_data(rows: Sequence[Row], hardware: Sequence[str]) -> str:
    """Returns the rows for the page's script, without a tag that could end it."""
    data = [
        {**msgspec.to_builtins(row), "cells": {name: msgspec.to_builtins(row.cells[name]) for name in hardware
                                                if name in row.cells}}
        for row in rows
    ]  # fmt: skip
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _render(template: str, view: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("engine.matrix"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=_markdown, seconds=_seconds, mebibytes=_mebibytes, told=_told)
    return environment.get_template(template).render(view, python=platform.python_version())


def _markdown(text: str) -> str:
    """Returns text for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _mebibytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:.0f} MiB"


def _told(cell: Cell | None) -> str:
    """Returns a cell in a few words."""
    if cell is None:
        return "–"
    if cell.status != "ok":
        return cell.status
    error = f", {cell.error:.0e}" if cell.error else ""
    return f"ok ({cell.route}{error})" if cell.route and cell.route != "torch" else "ok"
