"""`engine -m …`: run every combination, and compare them. Each cell is a process of its own with its own log."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from engine.cli.terminal import is_terminal, print_reasons, print_table
from engine.config.compose import choices, compose, expand, quoted, varied
from engine.core.child_process import module_command
from engine.core.cid import cid_of_json
from engine.core.errors import ConfigError, EngineError, Interrupted, OutputError
from engine.runs.lock import RunLock
from engine.runs.sweep import Cell, finished, read_cell, table, write_tables


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if every cell answered every row, else 3. Raises ConfigError, OutputError, Interrupted."""
    overrides: list[str] = arguments.words
    cells = expand(overrides, arguments.config_dir)
    folder = _folder(overrides, cells, arguments.config_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output.root: {folder} can't be made: {error.strerror}; choose a place you may write to"
        ) from error
    said = [choices(cell) for cell in cells]
    swept = varied(said)
    rows: list[Cell] = []
    lock = RunLock(folder)
    try:
        for number, cell in enumerate(cells, start=1):
            chosen = {key: value for key, value in said[number - 1].items() if key in swept}
            title = " ".join(f"{key}={value}" for key, value in chosen.items())
            print(f"[{number}/{len(cells)}] {title}", file=sys.stderr, flush=True)
            path = folder / f"{number:03d}-{_slug(title)}"
            rows.append(_run_cell(cell, chosen, path, arguments.config_dir))
            write_tables(folder, rows, swept)
    finally:
        lock.release()
    if is_terminal(sys.stdout):
        _print(*table(rows, swept))
    else:
        print((folder / "table.md").read_text(encoding="utf-8"), end="")
    print(f"→ {folder}")
    return 0 if all(row.status == "ok" for row in rows) else 3


def _print(heads: list[str], rows: list[list[str]]) -> None:
    """Prints a sweep's table on a terminal, without the columns that are empty; the reasons follow it."""
    reasons = [row[heads.index("reason")] for row in rows]
    shown = [index for index, head in enumerate(heads) if head != "reason" and any(row[index] for row in rows)]
    print_table([heads[index] for index in shown], [[row[index] for index in shown] for row in rows])
    print_reasons(reasons)


def _run_cell(cell: list[str], chosen: dict[str, str], path: Path, config_dir: str | None) -> Cell:
    """Runs a cell, continues it, or reads it if it has finished."""
    log = path.parent / f"{path.name}.log"
    try:
        compose(cell, config_dir)
    except EngineError as error:
        log.write_text(f"error: {error}\n", encoding="utf-8")
        return Cell(chosen, "failed", path.name, reason=str(error))
    if not finished(path):
        begun = (path / "manifest.json").is_file()
        command = module_command("engine", "run", *cell)
        command.append(f"output.{'resume' if begun else 'dir'}={quoted(str(path))}")
        if config_dir is not None:
            command += ["--config-dir", config_dir]
        with log.open("ab") as stream:
            stream.write(f"$ {shlex.join(['python', *command[1:]])}\n".encode())
            stream.flush()
            # A process group of its own: the terminal's Ctrl-C would reach it a second time, and mean "at once".
            process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0
            )
            with _stops_passed_on(process) as stops:
                process.wait()
        if stops:
            raise Interrupted(f"stopped in the cell {path.name}; give the same command again to continue")
    return read_cell(chosen, path, log)


@contextmanager
def _stops_passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Sends Ctrl-C, SIGTERM and SIGHUP to the cell, which then drains. Yields the list of those that came."""
    came: list[int] = []

    def passed_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _folder(overrides: list[str], cells: list[list[str]], config_dir: str | None) -> Path:
    """Returns the sweep's folder. Its name is the content id of the command, so that the same command continues it."""
    for line in overrides:
        key, _, value = line.partition("=")
        if key in ("output.dir", "output.resume"):
            raise ConfigError(f"{key}: every cell has a directory of its own; set output.root instead")
        if key == "workload" and "stdin" in value.split(","):
            raise ConfigError("workload=stdin can be read only once; write the rows to a file for a sweep")
    command = {
        "overrides": [line for line in overrides if not line.startswith(("output.", "telemetry"))],
        "config_dir": str(Path(config_dir).resolve()) if config_dir else None,
    }
    return _root(cells, config_dir) / "sweeps" / cid_of_json(command)[-12:]


def _root(cells: list[list[str]], config_dir: str | None) -> Path:
    """Returns `output.root` of the first valid cell, with its interpolations resolved once for all cells."""
    for cell in cells:
        try:
            return Path(compose(cell, config_dir).spec.output.root).expanduser()
        except EngineError:
            continue  # the sweep's table has the reason
    return Path(choices(cells[0]).get("output.root", "outputs") if cells else "outputs")


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", title)[:80].strip("_") or "cell"
