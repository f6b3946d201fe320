"""What a run must have left, however often it was stopped."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Launch = Callable[..., subprocess.Popen[str]]
Workload = Callable[[int], Path]


def run_of(child: subprocess.Popen[str]) -> Path:
    """The run directory that the child announces."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        assert child.stderr is not None
        raise AssertionError(child.stderr.read())
    return Path(line.removeprefix("run ").strip())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_complete(run: Path, rows: int) -> None:
    """Every row once, in input order, with the right answer; the failed ones also as dead letters."""
    results = lines_of(run / "results.jsonl")
    assert [line["custom_id"] for line in results] == [f"c{number}" for number in range(rows)]
    for number, line in enumerate(results):
        if number % 10 == 9:
            assert line["response"] is None
            assert line["error"]["kind"] == "server"
        else:
            answer = line["response"]["body"]["choices"][0]["message"]["content"]
            assert answer == f"ask {number}"[::-1]
    dead = lines_of(run / "dead.jsonl")
    assert dead == [{"custom_id": f"c{n}", "prompt": f"fail {n}"} for n in range(rows) if n % 10 == 9]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["ok"] + manifest["failed"] == manifest["rows"] == rows
    assert json.loads((run / "metrics.json").read_text())["requests"] == rows


def wait_for_rows(run: Path, rows: int, limit_s: float = 20) -> None:
    """Until the journal of another process has so many rows."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        try:
            with sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True) as connection:
                if connection.execute("SELECT count(*) FROM record").fetchone()[0] >= rows:
                    return
        except sqlite3.OperationalError:
            time.sleep(0.005)
        time.sleep(0.005)
    raise AssertionError(f"no {rows} rows after {limit_s} s")
