"""engine/runs/report.py: what a reader sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.runs import RunDirectory, execute, open_run
from engine.runs.report import rewrite_report
from engine.workloads import open_source
from runs.child_run import Answering, spec_of


@pytest.fixture
async def run(tmp_path: Path) -> RunDirectory:
    rows = tmp_path / "in.jsonl"
    rows.write_text(
        '{"id": "one|two", "prompt": "<script>alert(1)</script> | x"}\n{"prompt": "fail"}\n{"prompt": "z"}\n'
    )
    spec = spec_of(str(rows), str(tmp_path / "out"))
    source = open_source(spec.workload)
    with open_run(spec, source) as run:
        await execute(Answering(), spec, run, source=source)
    return run


async def test_both_reports_have_counts_targets_failures_and_answers(run: RunDirectory) -> None:
    for path in (run.report_md, run.report_html):
        text = path.read_text()
        for part in ("test/reverse", "66.7 %", "it failed", "queue", "kind: simulated", "p99"):
            assert part.lower() in text.lower(), (path.name, part)


async def test_a_row_cannot_put_markup_into_the_report(run: RunDirectory) -> None:
    assert "<script" not in run.report_html.read_text()
    assert "<script" not in run.report_md.read_text()
    assert r"one\|two" in run.report_md.read_text()


async def test_the_page_loads_nothing_from_elsewhere(run: RunDirectory) -> None:
    assert not re.search(r"(?:src|href|url\()\s*=?\s*['\"]?(?:https?:)?//", run.report_html.read_text())


async def test_a_report_can_be_made_again_without_the_workload(run: RunDirectory) -> None:
    before = run.report_md.read_text()
    run.report_md.unlink()
    rewrite_report(run, None)
    after = run.report_md.read_text()
    assert before.split("## First answers")[0] == after.split("## First answers")[0]
