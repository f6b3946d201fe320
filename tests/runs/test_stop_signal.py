"""engine/runs/stop_signal.py: SIGHUP, which a closed terminal sends, drains like SIGTERM."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from tests.runs.checks import Launch, check_complete, run_of, wait_for_rows

pytestmark = pytest.mark.slow

Workload = Callable[[int], Path]


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """Children inherit an ignored SIGHUP, such as from tests that were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("times", [1, 2])
def test_a_hang_up_drains_and_the_run_resumes(workload: Workload, tmp_path: Path, launch: Launch, times: int) -> None:
    """Shell and kernel both tell it: the second one does not cut off what is in flight."""
    path, calls = workload(300), tmp_path / "calls"
    child = launch(path, tmp_path / "out", delay_s=0.05, window=20, calls=calls)
    run = run_of(child)
    wait_for_rows(run, 30)
    for _ in range(times):
        child.send_signal(signal.SIGHUP)
    child.communicate(timeout=60)
    assert child.returncode == 130
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert manifest["ok"] + manifest["failed"] == len(calls.read_text().splitlines())
    launch(path, tmp_path / "out", resume=run, calls=calls).communicate(timeout=120)
    check_complete(run, 300)


def test_a_terminal_that_is_closed_leaves_a_run_that_ended_well(workload: Workload, tmp_path: Path) -> None:
    path = workload(2000)
    master, terminal = pty.openpty()
    child_run = Path(__file__).with_name("child_run.py")
    command = [sys.executable, str(child_run), str(path), str(tmp_path / "out"), "delay_s=0.05", "window=10"]
    child = subprocess.Popen(
        [*command, f"dir={tmp_path / 'run'}", "progress=on"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[1])},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        wait_for_rows(tmp_path / "run", 20)
        os.close(master)
        child.send_signal(signal.SIGHUP)
        assert child.wait(timeout=60) == 130
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"


def test_under_nohup_it_goes_on(workload: Workload, tmp_path: Path) -> None:
    path = workload(120)
    child_run = Path(__file__).with_name("child_run.py")
    program = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, sys.executable, str(child_run), str(path), str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[1])}
    with subprocess.Popen(
        [*command, "delay_s=0.05", "window=10", f"dir={tmp_path / 'run'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as child:
        wait_for_rows(tmp_path / "run", 20)
        child.send_signal(signal.SIGHUP)
        child.communicate(timeout=60)
    assert child.returncode == 3
    check_complete(tmp_path / "run", 120)
