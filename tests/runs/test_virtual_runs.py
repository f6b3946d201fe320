"""Whole runs in virtual time: engine/cli/run.py and engine/runs over the simulation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.cli.main import main
from engine.config.compose import compose
from engine.core import virtual_time
from engine.core.errors import Interrupted
from engine.core.virtual_time import VirtualClock
from engine.executors.services import Services
from engine.runs import StopSignal, Summary, execute, open_run
from engine.workloads.open import open_source
from tests.runs.checks import lines_of, wait_for_rows

ROOT = Path(virtual_time.__file__).parents[1]
pytestmark = pytest.mark.slow  # each composes a run and makes its report: half a second


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command line over the simulated provider and made-up rows: `code, metrics, said = simulate(…)`."""

    def run(*words: str, name: str = "run", workload: str = "synthetic") -> tuple[int, dict[str, Any], str]:
        folder = tmp_path / name
        code = main(["provider=simulated", f"workload={workload}", f"output.dir={folder}", *words])
        said = capsys.readouterr()
        metrics = json.loads((folder / "metrics.json").read_bytes()) if (folder / "metrics.json").exists() else {}
        return code, metrics, said.out + said.err

    return run


def test_ten_minutes_of_traffic_take_ten_virtual_minutes(simulate: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    code, metrics, said = simulate("workload.duration_s=600", "workload.rate_per_s=1", "provider.latency_s=2")
    assert code == 0
    assert metrics["wall_s"] == pytest.approx(600, abs=15)
    assert metrics["requests"] == pytest.approx(600, rel=0.2)
    assert metrics["latency_s"]["p50"] == pytest.approx(2.0, rel=0.02)
    assert "s of virtual time" in said
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["time"] == "virtual"
    assert manifest["sessions"][0]["real_s"] <= time.monotonic() - began


def test_the_same_seed_gives_the_same_metrics_byte_for_byte(simulate: Any, tmp_path: Path) -> None:
    words = ("workload.duration_s=60", "provider.latency_s=1", "provider.failure_rate=0.2", "workload.rate_per_s=5")
    for name in ("a", "b"):
        simulate(*words, name=name)
    simulate(*words, "seed=1", name="c")
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in "abc"]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]
    results = [lines_of(tmp_path / name / "results.jsonl") for name in "ab"]
    assert [line["engine"] for line in results[0]] == [line["engine"] for line in results[1]]


def test_rows_start_at_their_own_times_whatever_is_under_way(simulate: Any) -> None:
    code, metrics, _ = simulate(
        "workload.arrivals=trace", "workload.times=[0,0.5,1.0,50]", "provider.latency_s=30", "policy=off"
    )
    assert code == 0
    assert metrics["wall_s"] == 80.0
    assert metrics["latency_s"]["max"] == pytest.approx(30, rel=0.02)
    assert metrics["held_back"] == 0


def test_a_window_that_holds_rows_back_says_so(simulate: Any) -> None:
    code, metrics, said = simulate(
        "workload.arrivals=constant",
        "workload.rate_per_s=1",
        "workload.limit=10",
        "provider.latency_s=20",
        "output.window=4",
    )
    assert code == 0
    assert metrics["held_back"] == 6
    assert metrics["held_back_s"] == pytest.approx(32)  # the ninth row waits for the fifth, which waited for the first
    assert "rows are held back from 4.0 s on" in said
    assert "raise output.window" in said


def test_users_of_a_closed_loop_wait_for_their_answers(simulate: Any) -> None:
    code, metrics, _ = simulate(
        "workload.arrivals=closed", "workload.users=4", "workload.duration_s=100", "provider.latency_s=10", "policy=off"
    )
    assert code == 0
    assert metrics["requests"] == 40
    assert metrics["wall_s"] == 100.0


def test_users_think_before_they_ask(simulate: Any) -> None:
    words = ("workload.arrivals=closed", "workload.users=10", "workload.duration_s=1000", "provider.latency_s=1")
    _, metrics, _ = simulate(*words, "workload.think_s=9", "policy=off")
    assert metrics["requests"] == pytest.approx(1000, rel=0.1)


def test_users_who_take_no_time_are_refused_and_not_served_for_ever(simulate: Any) -> None:
    code, _, said = simulate("workload.arrivals=closed", "policy=off")
    assert code == 4
    assert "virtual time can't advance" in said
    assert "provider.latency_s or workload.think_s" in said


def test_a_file_of_rows_takes_virtual_time_when_it_is_asked_for(simulate: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    words = (f"workload.path={tmp_path / 'in.jsonl'}", "provider.latency_s=3600", "provider.time=virtual")
    code, metrics, _ = simulate(*words, "policy=off", "output.stalled_s=null", workload="jsonl")
    assert (code, metrics["wall_s"], metrics["ok"]) == (0, 3600.0, 2)


def test_real_time_is_kept_when_it_is_asked_for(simulate: Any, tmp_path: Path) -> None:
    words = ("workload.arrivals=constant", "workload.rate_per_s=50", "workload.limit=5", "provider.time=real")
    code, metrics, said = simulate(*words)
    assert code == 0
    assert 0.08 < metrics["wall_s"] < 5
    assert "virtual" not in said
    assert json.loads((tmp_path / "run/manifest.json").read_text())["time"] == "real"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["workload=stdin"], "provider.time: stdin comes in real time"),
        (["fallbacks=[{provider: ollama, model: {name: m}}]"], "fallbacks[0].provider: ollama/m is not simulated"),
    ],
)
def test_virtual_time_that_can_not_be_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["provider=simulated", "provider.time=virtual", f"output.dir={tmp_path / 'run'}", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# -- stalled ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [("policy/breaker=default",), ("policy/breaker=off",)], ids=["waits for the circuit", "fails each row"]
)
def test_a_run_that_nobody_answers_stops_as_stalled(simulate: Any, tmp_path: Path, policy: tuple[str, ...]) -> None:
    words = ("provider.failure_rate=1", "provider.failure_kind=server", "output.stalled_s=300", *policy)
    code, _, said = simulate(*words, "workload.duration_s=36000", "workload.rate_per_s=0.1")
    assert code == 6
    assert "no row made progress for 300 s (output.stalled_s)" in said
    assert "simulated/simulated: server: " in said
    assert f"runs resume {tmp_path / 'run'}" in said
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["status"] == "stalled"
    assert 300 <= manifest["wall_s"] < 600
    assert manifest["ok"] == 0


def test_rows_that_a_stall_cancels_are_left_for_the_resume(simulate: Any, tmp_path: Path) -> None:
    words = ("workload.arrivals=constant", "workload.limit=30", "workload.rate_per_s=1", "provider.failure_rate=1")
    code, _, _ = simulate(*words, "policy/retry=patient", "output.stalled_s=20", "output.drain_s=1")
    assert code == 6
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["ok"] + manifest["failed"] < 30


def test_a_row_that_fails_by_its_own_fault_is_no_stall(simulate: Any) -> None:
    words = ("workload.arrivals=constant", "workload.limit=30", "workload.duration_s=null", "provider.failure_rate=1")
    code, metrics, _ = simulate(
        *words, "workload.rate_per_s=0.1", "provider.failure_kind=invalid_request", "output.stalled_s=20"
    )
    assert code == 3
    assert metrics["outcomes"] == {"invalid_request": 30}


def test_a_gap_in_the_traffic_is_no_stall(simulate: Any) -> None:
    code, _, _ = simulate("workload.arrivals=trace", "workload.times=[0,5000]", "workload.duration_s=null")
    assert code == 0


def test_a_run_that_was_told_to_wait_waits_out_an_outage(simulate: Any) -> None:
    faults = "provider.faults=[{kind: connect, to_s: 150}]"
    words = ("workload.arrivals=constant", "workload.limit=20", "workload.rate_per_s=1", faults)
    assert simulate(*words, "output.stalled_s=60", name="impatient")[0] == 6
    code, metrics, _ = simulate(*words, "output.stalled_s=null", "policy.retry.max_retries=30", name="patient")
    assert code == 0
    assert metrics["wall_s"] > 150


# -- stopping and resuming ------------------------------------------------------------------------------------------


def start(run: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "engine", "provider=simulated", "workload=synthetic", f"output.dir={run}", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_closed_loop_resumes_for_what_is_left_of_its_time(tmp_path: Path) -> None:
    words = ["provider=simulated", "provider.latency_s=10", "policy=off", "workload=synthetic"]
    words += ["workload.arrivals=closed", "workload.users=4", "workload.duration_s=100"]

    async def session(where: str, stop_s: float, clock: VirtualClock) -> Summary:
        spec, stop = compose([*words, f"output.{where}={tmp_path / 'run'}"]).spec, StopSignal()
        asyncio.get_running_loop().call_later(stop_s, stop.drain)
        source = open_source(spec.workload, spec.model.tasks, spec.seed)
        async with Engine(spec, services=Services(clock=clock)) as engine:
            with open_run(spec, source) as run:
                return await execute(engine, spec, run, stop=stop, source=source)

    with pytest.raises(Interrupted, match="20 rows are recorded"):
        virtual_time.run(partial(session, "dir", 45.0))
    summary = virtual_time.run(partial(session, "resume", 1000.0))
    assert (summary.rows, summary.ok, summary.wall_s) == (40, 40, 100.0)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_resumes_to_a_result_for_every_row(stop: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("workload.rate_per_s=100", "workload.limit=20000", "workload.duration_s=null", "provider.latency_s=0.2")
    child = start(run, *words)
    wait_for_rows(run, 4000)
    child.send_signal(stop)
    _, said = child.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert child.returncode == 130
        assert f"runs resume {run}" in said
    done = subprocess.run(
        [sys.executable, "-m", "engine", "runs", "resume", str(run)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    results = lines_of(run / "results.jsonl")
    assert [line["custom_id"] for line in results] == [f"row-{number}" for number in range(1, 20_001)]
    manifest = json.loads((run / "manifest.json").read_text())
    assert [manifest["status"], manifest["time"], manifest["ok"]] == ["finished", "virtual", 20_000]
    assert manifest["wall_s"] == pytest.approx(200, rel=0.05)  # the traffic went on where it had stopped


def test_a_run_is_resumed_from_another_folder_by_its_absolute_path(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "in.jsonl").write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(40)))
    words = ["provider=simulated", "provider.latency_s=0.05", "policy.queue.concurrency=1", "output.dir=run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-m", "engine", *words, "workload=jsonl", "workload.path=in.jsonl"], cwd=home, env=env
    )
    wait_for_rows(home / "run", 2)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    again = [sys.executable, "-m", "engine", "runs", "resume", str(home / "run")]
    done = subprocess.run(again, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(home / "run/results.jsonl")) == 40
