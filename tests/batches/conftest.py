"""What the tests of batch jobs share: run specs for the three APIs, and processes that execute them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine

APIS = {"openai": ("openai", "/v1"), "anthropic": ("anthropic", ""), "gemini": ("gemini", "/v1beta")}
"""Batch API → dialect, and what its base_url ends with."""
KEYS = {"TEST_BATCH_KEY": "sk-test-batch-0123456789abcdef"}

Start = Callable[[dict[str, Any]], "subprocess.Popen[str]"]


def spec_for(api: str, url: str, folder: Path, rows: int = 12, **job: Any) -> dict[str, Any]:
    """A run spec as plain data. `job` is policy.batch.job; `provider`, `output` and `lines` go where they belong."""
    dialect, prefix = APIS[api]
    provider, output, lines = job.pop("provider", {}), job.pop("output", {}), job.pop("lines", None)
    workload = folder / "in.jsonl"
    if not workload.exists():
        made = lines or [{"custom_id": f"c{number}", "prompt": f"ask {number}"} for number in range(rows)]
        workload.write_text("".join(json.dumps(line) + "\n" for line in made))
    quick = {"poll_s": 0.02, "poll_max_s": 0.1, "linger_s": 0.05, "settle_s": 0.1}
    return {
        "provider": {
            "kind": "remote",
            "name": api,
            "dialect": dialect,
            "base_url": url + prefix,
            "credential": {"env": ["TEST_BATCH_KEY"]},
            "batch": {"api": api, "tasks": ["chat", "embedding"]},
            **provider,
        },
        "hardware": {"kind": "cpu"},
        "model": {"name": "simulated", "tasks": []},
        "workload": {"kind": "jsonl", "path": str(workload)},
        "policy": {"batch": {"strategy": "provider", "job": {**quick, **job}}},
        "output": {"dir": str(folder / "run"), **output},
    }


def resumed(spec: dict[str, Any]) -> dict[str, Any]:
    """The same run, to be continued."""
    output = {**spec["output"], "resume": spec["output"]["dir"], "dir": None}
    return {**spec, "output": output}


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts child_run.py with a spec; what still runs at the end is killed."""
    children: list[subprocess.Popen[str]] = []

    def launch(spec: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("child_run.py")), json.dumps(spec)]
        env = {**os.environ, **KEYS, "PYTHONPATH": str(Path(engine.__file__).parents[1])}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        children.append(child)
        return child

    yield launch
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
