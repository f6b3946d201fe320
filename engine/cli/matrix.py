"""`engine matrix [NAME …]`: the compatibility matrix of model types and hardware."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from engine.cli.command import Command, above_zero, whole_number
from engine.core.errors import ConfigError, SetupError, nearest
from engine.matrix.catalog import entries
from engine.matrix.report.record import Row
from engine.matrix.run import HARDWARE, PREVIOUS, Plan, environment, run
from engine.runtimes import devices


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hardware", default="cpu,openvino", help="one or more of cpu, openvino, cuda, with commas")
    parser.add_argument("--jobs", type=whole_number(1), default=1, help="rows at a time")
    parser.add_argument(
        "--time-limit", type=above_zero, default=300.0, metavar="SECONDS", help="for one row, in seconds"
    )
    parser.add_argument("--memory-limit", type=above_zero, default=4.0, metavar="GIB", help="for one row, in GiB")
    parser.add_argument("--resume", action="store_true", help="continue the last pass")
    parser.add_argument("--out", default="outputs/matrix", metavar="DIR", help="folder of the results")


COMMAND = Command(
    summary="build every model type small, run it on each hardware, and compare the outputs",
    words="[MODEL_TYPE …]",
    flags=_flags,
    examples=("matrix bert gpt2", "matrix --hardware cpu,openvino --jobs 2", "matrix --resume"),
    exit_codes=(0, 2, 4, 5),
)


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
    return Plan(
        entries=entries(arguments.words),
        hardware=hardware,
        out=Path(arguments.out),
        jobs=arguments.jobs,
        time_limit_s=arguments.time_limit,
        memory_limit_bytes=int(arguments.memory_limit * 2**30),
        resume=arguments.resume,
    )


def _say(row: Row, done: int, total: int) -> None:
    cells = "  ".join(f"{name} {cell.status}" for name, cell in row.cells.items())
    print(f"[{done}/{total}] {row.name:<32} {cells}  ({row.wall_s:.1f} s)", flush=True)
