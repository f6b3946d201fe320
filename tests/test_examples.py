"""The examples run as the documentation says, with a simulated provider."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
REPO = str(EXAMPLES / "config-repo")

pytestmark = pytest.mark.slow


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan(folder: Path, *words: str) -> dict[str, Any]:
    planned: dict[str, Any] = json.loads(run(folder, "-m", "engine", "plan", *words, "--json"))
    return planned


def test_every_form_of_row_is_answered(tmp_path: Path) -> None:
    rows = EXAMPLES / "rows.jsonl"
    run(tmp_path, "-m", "engine", "provider=simulated", "workload=jsonl", f"workload.path={rows}", "output.dir=out")
    results = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    assert [result["error"] for result in results] == [None] * 7
    assert [result["custom_id"] for result in results] == [
        "row-1",
        "prime",
        "urgent",
        "rest",
        "vector",
        "batch-1",
        "batch-2",
    ]
    assert results[2]["engine"]["metadata"] == {"ticket": 4711}
    assert len(results[6]["response"]["body"]["data"]) == 2


def test_the_library_example_runs(tmp_path: Path) -> None:
    said = run(tmp_path, str(EXAMPLES / "library.py"), "provider=simulated")
    assert "one: [simulated]" in said
    assert "stream: [simulated]" in said
    assert said.count("many: ok") == 3
    assert "plain: simulated ok" in said


def test_a_config_repo_adds_options(tmp_path: Path) -> None:
    spec = plan(tmp_path, "--config-dir", REPO, "provider=lab")["spec"]
    assert (spec["provider"]["name"], spec["provider"]["dialect"]) == ("lab", "openai")
    assert spec["policy"]["retry"]["max_retries"] == 20


def test_a_config_repo_replaces_options_and_the_defaults(tmp_path: Path) -> None:
    spec = plan(tmp_path, "--config-dir", REPO)["spec"]
    assert (spec["provider"]["kind"], spec["provider"]["latency_s"], spec["seed"]) == ("simulated", 0.01, 7)


def test_a_search_path_adds_options_and_replaces_none(tmp_path: Path) -> None:
    search = f"hydra.searchpath=[file://{REPO}]"
    added = plan(tmp_path, search, "provider=lab", "model=house-chat")["spec"]
    assert added["provider"]["name"] == "lab"
    assert plan(tmp_path, search, "provider=simulated")["spec"]["provider"]["latency_s"] == 0.0


def test_a_run_records_its_config_repo(tmp_path: Path) -> None:
    run(tmp_path, "-m", "engine", "--config-dir", REPO, "output.dir=out")
    configs = json.loads((tmp_path / "out" / "manifest.json").read_text())["configs"]
    assert [config["origin"] for config in configs] == ["--config-dir", "engine"]
