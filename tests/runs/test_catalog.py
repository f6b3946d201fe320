"""engine/runs/catalog.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.errors import OutputError
from engine.runs import execute, open_run
from engine.runs.catalog import diff, list_runs, prune, show
from engine.workloads.open import open_source
from tests.runs.child_run import Answering, spec_of


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """Runs a (finished), b (crashed), c (finished, other limit)."""
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    for name, limit in (("a", 2), ("b", 2), ("c", 1)):
        spec = spec_of(str(rows), "", dir=str(tmp_path / "out" / name), rows={"limit": limit})
        source = open_source(spec.workload)
        with open_run(spec, source) as run:
            if name != "b":
                await execute(Answering(), spec, run, source=source)
    (tmp_path / "out" / "notes").mkdir()
    return tmp_path / "out"


def test_runs_are_listed_with_their_true_status(root: Path) -> None:
    assert [(run.name, run.status, run.resumable) for run in list_runs(root)] == [
        ("a", "finished", False),
        ("b", "crashed", True),
        ("c", "finished", False),
    ]


async def test_a_run_that_a_process_holds_is_running(root: Path, tmp_path: Path) -> None:
    spec = spec_of(str(tmp_path / "in.jsonl"), "", resume=str(root / "b"), rows={"limit": 2})
    with open_run(spec, open_source(spec.workload)):
        assert [run.status for run in list_runs(root)] == ["finished", "running", "finished"]
        assert "b" not in [run.name for run in prune(root, keep=0, force=True)]
    assert [run.name for run in list_runs(root)] == ["b"]


def test_showing_a_run_gives_manifest_and_metrics(root: Path) -> None:
    record = show(root / "a")
    assert record["rows"] == 2
    assert record["metrics"]["ok"] == 2
    assert show(root / "b")["metrics"] is None


def test_comparing_gives_spec_lines_and_ratios(root: Path) -> None:
    found = diff(root / "a", root / "c")
    assert "workload.limit: 2 -> 1" in found.spec
    assert next(metric for metric in found.metrics if metric.name == "ok").ratio == 0.5


def test_pruning_keeps_the_latest_and_what_can_be_resumed(root: Path) -> None:
    assert [run.name for run in prune(root, keep=1, dry_run=True)] == ["a"]
    assert len(list_runs(root)) == 3
    assert [run.name for run in prune(root, keep=1)] == ["a"]
    assert [run.name for run in list_runs(root)] == ["b", "c"]
    assert [run.name for run in prune(root, keep=1, force=True)] == ["b"]


def test_pruning_by_age_spares_the_young(root: Path) -> None:
    assert prune(root, older_than_s=3600) == []
    manifest = json.loads((root / "a/manifest.json").read_text())
    manifest["started"] = "2020-01-01T00:00:00.000Z"
    (root / "a/manifest.json").write_text(json.dumps(manifest))
    assert [run.name for run in prune(root, older_than_s=3600)] == ["a"]


def test_pruning_without_a_limit_is_refused(root: Path) -> None:
    with pytest.raises(OutputError, match="keep=N"):
        prune(root)
