"""A sweep's cells and its table: markdown, csv and json, a row for every cell."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.atomic_file import write_atomic

FIGURES = {
    "rows": "rows",
    "ok": "ok",
    "failed": "failed",
    "wall_s": "wall s",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tok/s",
    "latency_p50_s": "p50 s",
    "latency_p95_s": "p95 s",
    "retries": "retries",
    "cost": "cost $",
    "cost_unknown": "cost unknown",
}
"""The columns after the choices, and their headings."""


@dataclass
class Cell:
    """One combination and its outcome."""

    choices: dict[str, str]
    status: str
    """`ok`, `rows failed` or `failed`."""
    run: str
    """Its directory within the sweep's."""
    figures: dict[str, Any] | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "choices": self.choices,
            "status": self.status,
            "run": self.run,
            "reason": self.reason or None,
            **{name: (self.figures or {}).get(name) for name in FIGURES},
        }


def finished(path: Path) -> bool:
    """True if a cell's run is finished."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return False
    return bool(manifest.get("status") == "finished")


def read_cell(choices: dict[str, str], path: Path, log: Path) -> Cell:
    """Reads a cell after its process has ended."""
    if not finished(path):
        return Cell(choices, "failed", path.name, reason=_reason(log))
    metrics = json.loads((path / "metrics.json").read_bytes())
    latency = metrics.get("latency_s") or {}
    figures = {
        "rows": metrics.get("requests"),
        "ok": metrics.get("ok"),
        "failed": metrics.get("failed"),
        "wall_s": metrics.get("wall_s"),
        "requests_per_s": metrics.get("requests_per_s"),
        "output_tokens_per_s": metrics.get("output_tokens_per_s"),
        "latency_p50_s": latency.get("p50"),
        "latency_p95_s": latency.get("p95"),
        "retries": metrics.get("retries"),
        "cost": metrics.get("cost"),
        "cost_unknown": metrics.get("cost_unknown") or None,
    }
    failed = metrics.get("failed") or 0
    outcomes = {kind: count for kind, count in (metrics.get("outcomes") or {}).items() if kind != "ok"}
    reason = ", ".join(f"{count} {kind}" for kind, count in outcomes.items())
    return Cell(choices, "rows failed" if failed else "ok", path.name, figures, reason)


def _reason(log: Path) -> str:
    """Returns the error line of a cell's log, or its last line."""
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError as error:
        return f"no log: {error.strerror}"
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["ended without a word"])[-1].removeprefix("error: ")


def table(cells: list[Cell], swept: list[str]) -> tuple[list[str], list[list[str]]]:
    """Returns the heads and the rows of a sweep's table."""
    heads = [*swept, "status", *FIGURES.values(), "reason", "run"]
    return heads, [
        [*(cell.choices.get(key, "") for key in swept), cell.status, *_shown(cell), cell.reason, cell.run]
        for cell in cells
    ]


def write_tables(folder: Path, cells: list[Cell], swept: list[str]) -> None:
    """Writes table.md, table.csv and table.json. Raises OutputError."""
    heads, rows = table(cells, swept)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([heads, *rows])
    write_atomic(folder / "table.csv", lines.getvalue().encode())
    write_atomic(folder / "table.md", _markdown(heads, rows).encode())
    content = json.dumps([cell.as_dict() for cell in cells], indent=2, ensure_ascii=False)
    write_atomic(folder / "table.json", content.encode() + b"\n")


def _shown(cell: Cell) -> list[str]:
    values = ((cell.figures or {}).get(name) for name in FIGURES)
    return ["" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Returns a table whose columns line up, so that it reads well as plain text too."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in [heads, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(heads))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])]) + "\n"
