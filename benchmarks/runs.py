"""Durable runs: rows/s through the whole runner and peak memory, the journal alone, and the scan of a resume.

    python benchmarks/runs.py [ROWS …]

Each size is `python -m engine` in a process of its own, over the simulated provider, from a jsonl file: reading, the
chain, the journal with its fsyncs, the results in order, the report. The last size's run is then resumed, with every
row recorded. The journal alone: records of 700 bytes, as many in flight as a run has, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from contest import machine

JOURNAL_RECORDS = 500_000
IN_FLIGHT = 512
RECORD_BYTES = 700


def main() -> None:
    if sys.argv[1:2] == ["journal"]:
        print(asyncio.run(append_all(Path(sys.argv[2]))))
        return
    sizes = [int(word) for word in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    print(machine("msgspec", "pydantic"))
    with tempfile.TemporaryDirectory() as folder:
        print("| rows | rows/s | peak memory, MB | results written |\n|--:|--:|--:|--:|")
        for rows in sizes:
            rate, memory, share = measure(rows, Path(folder))
            print(f"| {rows:,} | {rate:,.0f} | {memory:.1f} | {share:.0%} |", flush=True)
        scan_s, pass_s = resume(sizes[-1], Path(folder))
        print(f"\n- resume: the index of {sizes[-1]:,} records is read in {scan_s:.1f} s (bound: 5 s for a million)")
        print(f"- resume: these rows are passed over in {pass_s:.1f} s, the index included")
        rate, _ = child([sys.executable, __file__, "journal", f"{folder}/journal.sqlite"])
        print(f"- the journal alone: {float(rate):,.0f} records/s (bound: 20,000)")


def measure(rows: int, folder: Path) -> tuple[float, float, float]:
    """Measures rows/s, peak memory in MB, and the share of the rows that have a result."""
    with (folder / f"{rows}.jsonl").open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"custom_id": f"r{number}", "prompt": f"question number {number}"}) + "\n")
    run = folder / f"run-{rows}"
    words = ["provider=simulated", "workload=jsonl", f"workload.path={folder / f'{rows}.jsonl'}"]
    _, memory = child([sys.executable, "-m", "engine", *words, f"output.dir={run}", "telemetry.progress=off"])
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "results.jsonl").open("rb") as results:
        written = sum(1 for _ in results)
    return metrics["requests_per_s"], memory, written / rows


def resume(rows: int, folder: Path) -> tuple[float, float]:
    """Measures the seconds to read a run's index, and to find that none of its workload's rows is left."""
    from engine.runs.directory import load_spec
    from engine.runs.journal import recorded
    from engine.runs.pending_rows import PendingRows
    from engine.workloads.open import open_source

    run = folder / f"run-{rows}"
    spec = load_spec(run)
    began = time.perf_counter()
    if sum(1 for _ in recorded(run / "journal.sqlite")) != rows:
        raise SystemExit("the journal lacks records")
    scanned = time.perf_counter()
    rest = PendingRows(open_source(spec.workload, spec.model.tasks), run / "journal.sqlite")
    if any(True for _ in rest) or rest.passed != rows:
        raise SystemExit("rows were not recognised")
    return scanned - began, time.perf_counter() - scanned


async def append_all(path: Path) -> float:
    """Measures records/s into a journal, with at most IN_FLIGHT that are not yet durable."""
    from engine.core.errors import OutputError
    from engine.runs.journal import Journal

    journal = Journal(path)
    room = asyncio.Semaphore(IN_FLIGHT)
    payload = b"x" * RECORD_BYTES

    def durable(failure: OutputError | None) -> None:
        if failure is not None:
            raise SystemExit(str(failure))
        room.release()

    began = time.perf_counter()
    for index in range(JOURNAL_RECORDS):
        await room.acquire()
        journal.append(index, f"r{index}", True, index, payload, durable)
    await journal.aclose()
    return JOURNAL_RECORDS / (time.perf_counter() - began)


def child(command: list[str]) -> tuple[str, float]:
    """Returns the output of a separate process, and its peak memory in MB."""
    with tempfile.TemporaryFile("w+") as output:
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, used = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"failed: {' '.join(command)}")
        output.seek(0)
        return output.read(), used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
