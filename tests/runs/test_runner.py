"""engine/runs/runner.py, by real processes that are killed, interrupted and starved."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine import Engine
from engine.cli import main
from engine.config.compose import compose
from engine.core import virtual_time
from engine.core.errors import ConfigError, Interrupted, OutputError
from engine.core.request import EngineRecord, Request, Result
from engine.core.virtual_time import VirtualClock
from engine.executors.services import Services
from engine.runs import StopSignal, Summary, execute, open_run
from engine.runs.in_flight import Submits
from engine.runs.runner import window_of
from engine.schemas import RunSpec
from engine.workloads.open import open_source
from tests.runs.checks import Launch, Workload, check_complete, lines_of, run_of, wait_for_rows
from tests.runs.child_run import Answering, spec_of


async def run_here(spec: RunSpec, engine: Submits | None = None, stop: StopSignal | None = None) -> Summary:
    source = open_source(spec.workload, spec.model.tasks)
    with open_run(spec, source) as run:
        return await execute(engine or Answering(), spec, run, stop=stop, source=source)


async def test_every_row_gets_one_result_in_input_order(workload: Workload, tmp_path: Path) -> None:
    summary = await run_here(spec_of(str(workload(100)), str(tmp_path / "out")))
    assert (summary.rows, summary.ok, summary.failed, summary.exit_code) == (100, 90, 10, 3)
    assert summary.first_errors[0] == "c9: server: it failed"
    check_complete(summary.path, 100)
    assert not (summary.path / "journal.sqlite-wal").exists()


async def test_the_run_directory_holds_what_the_layout_names(workload: Workload, tmp_path: Path) -> None:
    summary = await run_here(spec_of(str(workload(3)), str(tmp_path / "out")))
    names = {entry.name for entry in summary.path.iterdir()}
    layout = "results.jsonl dead.jsonl report.md report.html metrics.json manifest.json spec.yaml journal.sqlite"
    assert set(layout.split()) <= names
    assert summary.exit_code == 0


async def test_a_malformed_row_fails_alone_and_its_dead_letter_reads_again(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    rows = [f'{{"prompt": "ask {number}"}}' for number in range(8)]
    rows[2] = '{"prompt": "ask 2"'
    path.write_text("\n".join(rows))
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    assert (summary.ok, summary.failed) == (7, 1)
    third = lines_of(summary.path / "results.jsonl")[2]
    assert third["error"]["kind"] == "invalid_request"
    assert "in.jsonl:3: not valid JSON" in third["error"]["message"]
    assert lines_of(summary.path / "dead.jsonl") == [{"custom_id": "row-3", "raw": rows[2]}]
    again = await run_here(spec_of(str(summary.path / "dead.jsonl"), str(tmp_path / "out2")))
    assert lines_of(again.path / "dead.jsonl") == [{"custom_id": "row-3", "raw": rows[2]}]


async def test_on_invalid_stop_refuses_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n[]\n')
    spec = spec_of(str(path), str(tmp_path / "out"), rows={"on_invalid": "stop"})
    with pytest.raises(ConfigError, match=r"in\.jsonl:2: expected a JSON object"):
        await run_here(spec)
    assert not (tmp_path / "out").exists()


async def test_rows_with_the_same_custom_id_each_get_their_result(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "x", "prompt": "a1"}\n{"id": "x", "prompt": "b2"}\n')
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    results = lines_of(summary.path / "results.jsonl")
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in results] == ["1a", "2b"]
    assert results[0]["id"] != results[1]["id"]


async def test_never_more_rows_than_the_window_are_under_way(workload: Workload, tmp_path: Path) -> None:
    class Counting(Answering):
        now = most = 0

        async def submit(self, request: Request) -> Result:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            return await super().submit(request)

    engine = Counting()
    await run_here(spec_of(str(workload(200)), str(tmp_path / "out"), window=7), engine)
    assert 1 < engine.most <= 7


def test_the_window_is_twice_the_concurrency_and_one_commit(tmp_path: Path) -> None:
    assert window_of(spec_of("x", "out", concurrency=10)) == 2 * 10 + 256
    assert window_of(spec_of("x", "out", window=5)) == 5


def test_a_queue_that_turns_requests_away_is_not_given_more_than_it_has_room_for() -> None:
    spec = compose(
        ["provider=simulated", "policy=interactive", "policy.queue.size=7", "policy.queue.concurrency=3"]
    ).spec
    assert window_of(spec) == 10


async def test_a_reply_that_json_cannot_say_fails_its_row_only(workload: Workload, tmp_path: Path) -> None:
    class Odd(Answering):
        async def submit(self, request: Request) -> Result:
            if request.id == "c1":
                return Result("c1", body={"text": "\ud800"}, engine=EngineRecord("t"))
            return await super().submit(request)

    summary = await run_here(spec_of(str(workload(3)), str(tmp_path / "out")), Odd())
    assert summary.outcomes == {"ok": 2, "malformed": 1}


async def test_a_defect_in_the_engine_stops_the_run_and_leaves_it_resumable(workload: Workload, tmp_path: Path) -> None:
    class Broken(Answering):
        async def submit(self, request: Request) -> Result:
            if request.id == "c5":
                raise ZeroDivisionError("a defect")
            return await super().submit(request)

    spec = spec_of(str(workload(20)), str(tmp_path / "out"), dir=str(tmp_path / "run"))
    with pytest.raises(ZeroDivisionError):
        await run_here(spec, Broken())
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "failed"
    await run_here(spec_of(str(tmp_path / "in.jsonl"), str(tmp_path / "out"), resume=str(tmp_path / "run")))
    check_complete(tmp_path / "run", 20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_resumes_without_a_row_lost_or_doubled(
    workload: Workload, tmp_path: Path, launch: Launch, seed: int
) -> None:
    rows, window = 600, 40
    path, calls = workload(rows), tmp_path / "calls"
    rng = random.Random(seed)
    options = {"delay_s": 0.002, "window": window, "commit_s": 0.005, "calls": calls}
    child = launch(path, tmp_path / "out", **options)
    run = run_of(child)
    kills = 0
    for _ in range(3):
        time.sleep(rng.uniform(0.0, 0.25))
        child.kill()
        kills += child.wait() == -signal.SIGKILL
        child = launch(path, tmp_path / "out", resume=run, **options)
        run_of(child)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 3, errors
    check_complete(run, rows)
    assert len(calls.read_text().splitlines()) <= rows + kills * window


@pytest.mark.slow
def test_a_killed_run_is_shown_with_the_rows_that_are_recorded(
    workload: Workload, tmp_path: Path, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    child = launch(workload(300), tmp_path / "out", delay_s=0.01, window=16)
    run = run_of(child)
    wait_for_rows(run, 20)
    child.kill()
    child.wait()
    assert main(["runs", "show", str(run), "--root", str(tmp_path / "out")]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["status"] == "crashed"
    assert int(shown["ok"]) + int(shown["failed"]) >= 20
    assert shown["next"] == f"python -m engine runs resume {run}"
    assert "report" not in shown


@pytest.mark.slow
def test_the_bound_on_repeated_calls_is_printed(workload: Workload, tmp_path: Path, launch: Launch) -> None:
    path = workload(300)
    child = launch(path, tmp_path / "out", delay_s=0.01, window=16)
    run = run_of(child)
    wait_for_rows(run, 20)
    child.kill()
    child.wait()
    again = launch(path, tmp_path / "out", resume=run, window=16, progress="auto")
    _, errors = again.communicate(timeout=60)
    assert "at most 16 calls may be repeated" in errors


@pytest.mark.slow
def test_one_interrupt_drains_and_the_run_resumes(workload: Workload, tmp_path: Path, launch: Launch) -> None:
    path, calls = workload(500), tmp_path / "calls"
    child = launch(path, tmp_path / "out", delay_s=0.05, window=20, calls=calls)
    run = run_of(child)
    wait_for_rows(run, 30)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert f"runs resume {run}" in errors
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert manifest["ok"] + manifest["failed"] == len(calls.read_text().splitlines())  # nothing was cut off
    again = launch(path, tmp_path / "out", resume=run, calls=calls)
    again.communicate(timeout=60)
    check_complete(run, 500)
    assert len(calls.read_text().splitlines()) == 500


@pytest.mark.slow
def test_the_second_interrupt_stops_at_once(workload: Workload, tmp_path: Path, launch: Launch) -> None:
    path = workload(50)
    child = launch(path, tmp_path / "out", delay_s=30, window=20)
    run = run_of(child)
    until = time.monotonic() + 10
    while not (run / "journal.sqlite").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == 130
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"
    launch(path, tmp_path / "out", resume=run).communicate(timeout=60)
    check_complete(run, 50)


@pytest.mark.slow
def test_an_interrupt_ends_a_run_that_waits_for_its_input(tmp_path: Path, launch: Launch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = launch(pipe, tmp_path / "out")
    run = run_of(child)
    with pipe.open("w") as stream:
        stream.write('{"id": "c0", "prompt": "ask 0"}\n')
        stream.flush()
        wait_for_rows(run, 1)  # answered while the pipe is still open
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "1 rows are recorded" in errors
    assert "Traceback" not in errors


async def test_draining_ends_after_its_limit(workload: Workload, tmp_path: Path) -> None:
    stop = StopSignal()
    spec = spec_of(str(workload(5)), str(tmp_path / "out"), drain_s=0.02)
    asyncio.get_running_loop().call_later(0.05, stop.drain)
    with pytest.raises(Interrupted, match="runs resume"):
        await run_here(spec, Answering(delay_s=60), stop)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_it_resumes(workload: Workload, tmp_path: Path, launch: Launch) -> None:
    path = workload(2000)
    child = launch(path, tmp_path / "out", fsize=200_000)
    run = run_of(child)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 5
    assert errors.startswith("error: ")
    assert "resume" in errors
    assert "Traceback" not in errors
    assert not (run / "results.jsonl").exists()
    again = launch(path, tmp_path / "out", resume=run)
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 3, errors
    check_complete(run, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [0, 3, 8])
def test_a_disk_that_is_full_before_the_first_row_leaves_nothing_and_says_to_try_again(
    workload: Workload, tmp_path: Path, blocks: int
) -> None:
    words = f"workload=jsonl workload.path={workload(20)} output.dir={tmp_path / 'run'} telemetry.progress=off"
    command = f"ulimit -f {blocks}; exec {sys.executable} -B -m engine provider=simulated {words}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5
    assert "free disk space or choose another disk; nothing was begun: try again then" in done.stderr
    assert "resume" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_never_work_in_one_directory(workload: Workload, tmp_path: Path, launch: Launch) -> None:
    path = workload(2000)
    child = launch(path, tmp_path / "out", delay_s=0.05, window=10)
    run = run_of(child)
    other = launch(path, tmp_path / "out", resume=run)
    _, errors = other.communicate(timeout=20)
    assert other.returncode == 5
    assert "in use by another process" in errors
    child.kill()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, launch: Launch) -> None:
    peaks = []
    for rows in (5_000, 60_000):
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as stream:
            stream.writelines(f'{{"prompt": "ask {number} {"x" * 200}"}}\n' for number in range(rows))
        out, errors = launch(path, tmp_path / "out").communicate(timeout=120)
        assert f"rows {rows} ok {rows}" in out, errors
        peaks.append(int(out.rsplit("peak_kib ", 1)[1]))
    assert peaks[1] - peaks[0] < 4 * 1024


async def test_a_changed_spec_is_refused_with_every_difference(workload: Workload, tmp_path: Path) -> None:
    path = workload(5)
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    changed = spec_of(str(path), str(tmp_path / "out"), resume=str(summary.path), rows={"parameters": {"seed": 7}})
    with pytest.raises(OutputError, match=r"workload\.parameters\.seed: \(absent\) -> 7"):
        await run_here(changed)


async def test_settings_that_change_no_answer_may_differ_at_resume(workload: Workload, tmp_path: Path) -> None:
    path = workload(5)
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    await run_here(spec_of(str(path), str(tmp_path / "out"), resume=str(summary.path), concurrency=2, window=3))
    check_complete(summary.path, 5)


async def test_a_changed_workload_is_refused(workload: Workload, tmp_path: Path) -> None:
    path = workload(20)
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    path.write_text(path.read_text().replace("ask 3", "ask 4"))
    with pytest.raises(OutputError, match="the same size, other content"):
        await run_here(spec_of(str(path), str(tmp_path / "out"), resume=str(summary.path)))


async def test_an_edit_that_the_quick_fingerprint_misses_is_found_at_its_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("w") as stream:  # 16 blocks of 64 KiB are looked at; this has gaps between them
        stream.writelines(f'{{"prompt": "ask {number} {"x" * 20_000}"}}\n' for number in range(200))
    first = await run_here(spec_of(str(path), str(tmp_path / "out")))
    content = path.read_bytes()
    changed = 0
    for number in range(200):
        place = content.index(f"ask {number} ".encode())
        path.write_bytes(content[:place] + b"ASK" + content[place + 3 :])
        try:
            await run_here(spec_of(str(path), str(tmp_path / "out"), resume=str(first.path)))
        except OutputError as error:
            if f"row {number + 1} (" in str(error):
                changed += 1
                break
    assert changed == 1


async def test_a_live_source_that_is_shorter_at_resume_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    summary = await run_here(spec_of(str(path), str(tmp_path / "out")))
    manifest = json.loads((summary.path / "manifest.json").read_text())
    manifest["source"] = None  # as a pipe's is
    (summary.path / "manifest.json").write_text(json.dumps(manifest))
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(OutputError, match="only 1 rows now, but row 2 is recorded"):
        await run_here(spec_of(str(path), str(tmp_path / "out"), resume=str(summary.path)))


def test_rows_that_wait_in_the_queue_are_not_called_after_a_stop(workload: Workload, tmp_path: Path) -> None:
    rows = [f"workload.path={workload(50)}", f"output.dir={tmp_path / 'run'}"]
    words = ["provider=simulated", "workload=jsonl", *rows, "policy.queue.concurrency=2", "provider.latency_s=20"]

    async def stop_after_50_s(clock: VirtualClock) -> None:
        spec = compose(words).spec
        async with Engine(spec, services=Services(clock=clock)) as engine:
            stop = StopSignal()
            asyncio.get_running_loop().call_later(50, stop.drain)
            with pytest.raises(Interrupted):
                await run_here(spec, engine, stop)

    virtual_time.run(stop_after_50_s)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["ok"] == 6  # two at a time: at 20 s, at 40 s, and those that were under way at 50 s
