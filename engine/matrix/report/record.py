"""The rows of the matrix, and the file that keeps them: append-only lines of JSON, one a finished row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from engine.core.errors import OutputError

Status = Literal["ok", "drift", "failed", "crashed", "timeout", "memory", "no device", "unavailable"]
Group = Literal["mapped", "named", "installed", "shape"]

MEANING: dict[Status, str] = {
    "ok": "runs, and its outputs equal those of float32 torch",
    "drift": "runs, but its outputs differ from those of float32 torch",
    "failed": "ends with an error",
    "crashed": "the process died",
    "timeout": "took longer than the time limit",
    "memory": "took more memory than the limit",
    "no device": "this machine does not have the hardware",
    "unavailable": "there is nothing to run: see the reason",
}


class Cell(msgspec.Struct, omit_defaults=True):
    """One model type on one hardware. Times in seconds, memory in bytes."""

    status: Status
    reason: str = ""
    fix: str = ""
    route: str = ""
    """The model's route to this hardware; on OpenVINO `trace` or `export`."""
    precision: str = ""
    load_s: float | None = None
    """Time until it can run: building, and on OpenVINO conversion and compilation."""
    run_s: float | None = None
    """Time of one forward pass of two rows, the median of three."""
    peak_bytes: int | None = None
    """The most memory that loading and running added to the process."""
    error: float | None = None
    """The largest difference from float32 torch, relative to the largest value of that output."""
    batch_sizes: list[int] = msgspec.field(default_factory=list)
    """Numbers of rows that run, and on hardware other than torch's CPU give the same outputs."""
    generates: bool | None = None
    """Of generative models on torch: True if transformers' generate() adds tokens, with its cache."""
    tokens_equal: bool | None = None
    """Of generative models: True if the same tokens come out, one after another."""
    other_precisions: dict[str, float] = msgspec.field(default_factory=dict)
    """Further precisions that run, each with its error."""


class Row(msgspec.Struct, omit_defaults=True):
    """One model type."""

    name: str
    group: Group
    model_type: str = ""
    checkpoint: str = ""
    model: str = ""
    """The class that was built."""
    parameters: int = 0
    level: str = ""
    """The changes that made the configuration small."""
    inputs: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """The shape of each input."""
    processors: list[str] = msgspec.field(default_factory=list)
    """Real preprocessing that made inputs; other inputs have only the right shape."""
    note: str = ""
    """The reason that the row deviates from the general recipe, or that there is nothing to run."""
    cells: dict[str, Cell] = msgspec.field(default_factory=dict)
    """Hardware → its cell."""
    wall_s: float = 0.0


def append(path: Path, row: Row) -> None:
    """Adds a finished row, so that it is on disk before the next one starts. Raises OutputError."""
    try:
        with path.open("ab") as stream:
            stream.write(msgspec.json.encode(row) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}; choose another folder with --out") from error


def read(path: Path) -> dict[str, Row]:
    """Reads the latest row of each name. A truncated last line is left out. Raises OutputError."""
    if not path.exists():
        return {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise OutputError(f"{path} can't be read: {error.strerror}") from error
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            row = msgspec.json.decode(line, type=Row)
        except msgspec.DecodeError as error:
            if number == len(lines) - 1:
                continue
            raise OutputError(
                f"{path}, line {number + 1}: not a row of the matrix: {error}; delete the file"
            ) from error
        rows[row.name] = row
    return rows


def covers(row: Row, hardware: Iterable[str]) -> bool:
    """Returns True if a row has an answer for each hardware."""
    return all(name in row.cells for name in hardware)
