"""Answers on standard output as they are durable, above the progress of the run."""

from __future__ import annotations

import json
import sys
from typing import Any

from engine.cli.terminal import coloured, is_terminal
from engine.core.request import Result
from engine.schemas import RunSpec
from engine.telemetry.progress import ProgressBar
from engine.workloads.open import Source

AUTO_ROWS = 100
"""With `output.show=auto` the answers of a longer run are not shown."""
_LINES = 20
_CHARS = 200


class ShownAnswers:
    """Shows each answer, and passes it on to the progress."""

    def __init__(self, progress: ProgressBar) -> None:
        self._progress = progress

    def start(self, total: int | None, done: int) -> None:
        self._progress.start(total, done)

    def add(self, result: Result) -> None:
        self._progress.show(text_of(result), sys.stdout)
        self._progress.add(result)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def close(self) -> None:
        self._progress.close()


def are_shown(spec: RunSpec, source: Source) -> bool:
    """Returns True if a run shows its answers: `auto` on a terminal, for a source that is live or short."""
    if spec.output.show != "auto":
        return spec.output.show == "on"
    if not is_terminal(sys.stdout) or source.made:
        return False
    if source.live:
        return True
    rows = source.count()
    return rows is not None and rows <= AUTO_ROWS


def text_of(result: Result) -> str:
    """Returns an answer, or the failure in its place, under the id of its row."""
    name = coloured(result.id, "bold")
    if result.error is not None:
        return f"{name}  {coloured('failed', 'red')}  {result.error.kind}: {result.error.message}"
    text = result.text if result.text is not None else _summary(result.body or {})
    lines = text.strip().splitlines() or ["(empty)"]
    if len(lines) == 1:
        return f"{name}  {lines[0]}"
    more = [f"… {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n  ".join([name, *lines[:_LINES], *more])


def _summary(body: dict[str, Any]) -> str:
    """Returns a reply without a text in a few words."""
    data = body.get("data")
    if isinstance(data, list) and data and isinstance(data[0], dict) and isinstance(data[0].get("embedding"), list):
        return f"{len(data)} × {len(data[0]['embedding'])} numbers"
    shown = {name: value for name, value in body.items() if name not in ("id", "object", "created", "model", "usage")}
    text = json.dumps(shown, ensure_ascii=False, default=str)
    return text if len(text) <= _CHARS else text[:_CHARS] + "…"
