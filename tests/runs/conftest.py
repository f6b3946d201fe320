"""What the tests of runs share: workloads on disk and child processes that answer them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from tests.runs.checks import Launch


@pytest.fixture
def workload(tmp_path: Path) -> Callable[[int], Path]:
    """Writes a workload of so many rows; every tenth fails."""

    def write(rows: int) -> Path:
        path = tmp_path / "in.jsonl"
        with path.open("w") as stream:
            for number in range(rows):
                word = "fail" if number % 10 == 9 else "ask"
                stream.write(json.dumps({"custom_id": f"c{number}", "prompt": f"{word} {number}"}) + "\n")
        return path

    return write


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts tests/runs/child_run.py; what still runs at the end is killed."""
    children: list[subprocess.Popen[str]] = []

    def start(workload: Path, root: Path, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("child_run.py")), str(workload), str(root)]
        command += [f"{name}={value}" for name, value in options.items()]
        env = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[1])}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
