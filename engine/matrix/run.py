"""Runs the matrix: every chosen row in a separate process, each recorded as soon as it is known."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from engine.core.errors import OutputError
from engine.matrix.catalog import Entry
from engine.matrix.measure.isolate import Ended, Limits, run_each
from engine.matrix.measure.memory import check_readable
from engine.matrix.measure.worker import Message, work
from engine.matrix.report import record
from engine.matrix.report.record import Cell, Row
from engine.matrix.report.suggest import suggestion

HARDWARE = ("cpu", "openvino", "cuda")
ROWS = "rows.jsonl"
PREVIOUS = "previous.jsonl"

Progress = Callable[[Row, int, int], None]
"""Called with a finished row, the number of finished rows, and the number of all rows."""


@dataclass(frozen=True)
class Plan:
    """The rows to run, and their settings."""

    entries: Sequence[Entry]
    hardware: Sequence[str]
    out: Path
    jobs: int
    time_limit_s: float
    memory_limit_bytes: int
    resume: bool


def run(plan: Plan, progress: Progress) -> dict[str, Row]:
    """Runs the missing rows and returns all rows. Raises SetupError and OutputError.

    Without `resume` the rows of the last run become those that this one is compared with. With it, rows that have an
    answer for each hardware stay.
    """
    check_readable()
    rows = _begin(plan)
    todo = [entry for entry in plan.entries if not _known(rows, entry, plan.hardware)]
    total = len(plan.entries)
    limits = Limits(plan.time_limit_s, plan.memory_limit_bytes)
    ended = run_each(
        todo, work, lambda entry: (entry, tuple(plan.hardware), plan.time_limit_s), parallel=plan.jobs, limits=limits,
        preload=("engine.matrix.measure.preload",),
    )  # fmt: skip
    for number, one in enumerate(ended, start=total - len(todo) + 1):
        row = _row(one, plan.hardware)
        record.append(plan.out / ROWS, row)
        rows[row.name] = row
        progress(row, number, total)
    return rows


def environment() -> dict[str, str]:
    """Returns the machine and the versions of the figures."""
    versions = {}
    for package in ("torch", "transformers", "openvino", "diffusers", "pillow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": platform.python_version(),
        **versions,
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _begin(plan: Plan) -> dict[str, Row]:
    """Makes the folder; returns the rows that stay."""
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        rows = plan.out / ROWS
        if not plan.resume and rows.exists():
            rows.replace(plan.out / PREVIOUS)
    except OSError as error:
        raise OutputError(f"{plan.out} can't be made: {error.strerror}; choose another folder with --out") from error
    return record.read(rows)


def _known(rows: dict[str, Row], entry: Entry, hardware: Sequence[str]) -> bool:
    return entry.name in rows and record.covers(rows[entry.name], hardware)


def _row(ended: Ended, hardware: Sequence[str]) -> Row:
    """Returns the row that a process reported, completed for the hardware that it did not reach."""
    entry: Entry = ended.job
    row = Row(entry.name, entry.group, model_type=entry.model_type, checkpoint=entry.checkpoint)
    cells: dict[str, Cell] = {}
    stage = "start"
    for said in ended.said:
        message = msgspec.msgpack.decode(said, type=Message)
        stage = message.stage or stage
        row = message.row or row
        if message.cell is not None:
            cells[message.hardware] = message.cell
    for name in hardware:
        if name not in cells and ended.ended_by is not None:
            kind, _, why = ended.ended_by.partition(": ")
            status: record.Status = "timeout" if kind == "timeout" else "memory" if kind == "memory" else "crashed"
            cells[name] = Cell(status, reason=f"{why}, at: {stage}", fix=suggestion(why))
    row.cells = {name: cells[name] for name in hardware if name in cells}
    row.wall_s = round(ended.wall_s, 2)
    return row
