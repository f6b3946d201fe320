"""The process of one model: builds it, runs it on each hardware, and reports each finding as soon as it is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.matrix.catalog import Entry, gone
from engine.matrix.measure.memory import Peak
from engine.matrix.report.record import Cell, Row
from engine.matrix.report.suggest import suggestion

_ROUTE_SHARE = 0.3
"""Share of a row's time for one of OpenVINO's three routes, so that the last one also gets its turn."""


class Message(msgspec.Struct):
    """One finding: the start of a stage, the row so far, or a cell."""

    stage: str = ""
    row: Row | None = None
    hardware: str = ""
    cell: Cell | None = None


def work(entry: Entry, hardware: Sequence[str], time_s: float, pipe: Any) -> None:
    """Runs in a separate process, for `time_s` at most; `pipe` is the writing end of a connection."""

    def say(message: Message) -> None:
        pipe.send_bytes(msgspec.msgpack.encode(message))

    _silence()
    say(Message(stage="build"))
    _limit_threads()
    row = Row(entry.name, entry.group, model_type=entry.model_type, checkpoint=entry.checkpoint)
    for name, cell in _cells(entry, row, hardware, time_s, say):
        if cell.status not in ("ok", "no device", "unavailable") and not cell.fix:
            cell.fix = suggestion(cell.reason)
        say(Message(hardware=name, cell=cell))
    pipe.close()


def _cells(entry: Entry, row: Row, hardware: Sequence[str], time_s: float, say: Any) -> Any:
    from engine.matrix.build.overrides import OVERRIDES
    from engine.matrix.build.recipe import RecipeFailed, Unavailable, build

    row.note = gone(entry.name) if entry.group != "shape" else ""
    if row.note:
        say(Message(row=row))
        yield from ((name, Cell("unavailable", reason=row.note)) for name in hardware)
        return
    if entry.name in OVERRIDES:
        row.note = OVERRIDES[entry.name].reason
    peak = Peak()
    try:
        built = build(entry.name)
    except Unavailable as reason:
        row.note = str(reason)
        say(Message(row=row))
        yield from ((name, Cell("unavailable", reason=str(reason), fix=suggestion(str(reason)))) for name in hardware)
        return
    except RecipeFailed as reason:
        say(Message(row=row))
        yield from ((name, Cell("failed", reason=str(reason))) for name in hardware)
        return
    row.model = type(built.model).__name__
    row.parameters, row.level = built.parameters, built.level
    row.inputs = {name: list(getattr(value, "shape", ())) for name, value in built.prepared.inputs.items()}
    row.processors = list(built.prepared.processors)
    say(Message(row=row))
    for name in hardware:
        say(Message(stage=name))
        yield name, _measured(built, name, peak, time_s, say)
        peak = Peak()


def _measured(built: Any, hardware: str, peak: Peak, time_s: float, say: Any) -> Cell:
    from engine.matrix.measure import on_openvino, on_torch

    if hardware == "openvino":
        return on_openvino.measure(built, peak, lambda stage: say(Message(stage=stage)), route_s=time_s * _ROUTE_SHARE)
    if hardware == "cuda":
        import torch

        if not torch.cuda.is_available():
            return Cell("no device", reason="torch sees no CUDA device", fix="run on a machine with an NVIDIA GPU")
    try:
        return on_torch.measure(built, hardware, peak)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return Cell("failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:260]}")


def _silence() -> None:
    """Silences converters, which print their progress; the report has the results."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _limit_threads() -> None:
    """Uses one thread: the models are tiny, and parallel processes would compete for the processors."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
