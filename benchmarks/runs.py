"""Durable runs: rows/s through the whole runner, and peak memory, from 10⁴ to 10⁶ rows.

    python benchmarks/runs.py [ROWS …]

Each size is `python -m engine` in a process of its own, over the simulated provider, from a jsonl file: reading, the
chain, the journal with its fsyncs, and the results in order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from contest import machine


def measure(rows: int, folder: Path) -> tuple[float, float, float]:
    """Rows/s, peak memory in MB, and the share of the rows that have a result."""
    source = folder / f"{rows}.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"custom_id": f"r{number}", "prompt": f"question number {number}"}) + "\n")
    run = folder / f"run-{rows}"
    words = [
        "provider=simulated",
        "workload=jsonl",
        f"workload.path={source}",
        f"output.dir={run}",
        "telemetry.progress=off",
    ]
    pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "engine", *words], os.environ)
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"the run of {rows} rows failed")
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "results.jsonl").open("rb") as results:
        written = sum(1 for _ in results)
    return metrics["requests_per_s"], used.ru_maxrss / 1024, written / rows


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    print(machine("msgspec", "pydantic"))
    print("| rows | rows/s | peak memory, MB | results written |\n|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            rate, memory, share = measure(rows, Path(folder))
            print(f"| {rows:,} | {rate:,.0f} | {memory:.1f} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
