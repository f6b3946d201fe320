"""`engine matrix [NAME …]`: the compatibility matrix of model types and hardware."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from engine.core.errors import ConfigError, SetupError, nearest
from engine.matrix.catalog import entries
from engine.matrix.report.record import Row
from engine.matrix.run import HARDWARE, PREVIOUS, Plan, environment, run
from engine.runtimes import devices


def main(arguments: argparse.Namespace) -> int:
    """Exit code 0 when every row has an answer, whatever the answer is. Raises ConfigError, SetupError, OutputError."""
    from engine.matrix.report.report import write

    if not devices.installed("torch", "transformers"):
        raise SetupError('matrix needs torch and transformers. Next: pip install "ipfs-accelerate[matrix]"')
    plan = _plan(arguments)
    print(f"{len(plan.entries)} rows on {', '.join(plan.hardware)}, {plan.jobs} at a time; into {plan.out}", flush=True)
    started = time.monotonic()
    rows = run(plan, _say)
    summary = write(plan.out, rows, plan.hardware, plan.out / PREVIOUS, environment())
    print(f"{summary}\n{plan.out / 'matrix.html'}  ({time.monotonic() - started:.0f} s)")
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    hardware = [name.strip() for name in arguments.hardware.split(",") if name.strip()]
    for name in hardware:
        if name not in HARDWARE:
            raise ConfigError(f"--hardware {name}: not a hardware of the matrix; {nearest(name, HARDWARE)}")
    if not hardware:
        raise ConfigError(f"--hardware: names nothing; one or more of {', '.join(HARDWARE)}, with commas between")
    if arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}: expected 1 or more")
    for flag, value in (("--time-limit", arguments.time_limit), ("--memory-limit", arguments.memory_limit)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{flag} {value:g}: expected a number above 0")
    return Plan(
        entries=entries(arguments.words),
        hardware=hardware,
        out=Path(arguments.out or "outputs/matrix"),
        jobs=arguments.jobs,
        time_limit_s=arguments.time_limit,
        memory_limit_bytes=int(arguments.memory_limit * 2**30),
        resume=arguments.resume,
    )


def _say(row: Row, done: int, total: int) -> None:
    cells = "  ".join(f"{name} {cell.status}" for name, cell in row.cells.items())
    print(f"[{done}/{total}] {row.name:<32} {cells}  ({row.wall_s:.1f} s)", flush=True)
