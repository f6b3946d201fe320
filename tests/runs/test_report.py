"""engine/runs/report.py: what a reader sees."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, RunSpec
from engine.core.resources import Resources
from engine.middleware.queue import PriorityGate
from engine.runs import RunDirectory, execute, open_run
from engine.runs.manifest import Provenance
from engine.runs.report import Findings, rewrite_report
from engine.runs.report_format import dollars, percent, stage_rows
from engine.schemas.policy import QueueSpec
from engine.workloads.open import open_source
from tests.runs.child_run import Answering, spec_of


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


def test_failures_that_say_the_same_are_told_once() -> None:
    findings = Findings()
    for number, message in enumerate(("no route", "no route", "too slow")):
        error = {"kind": "connect", "message": message}
        record = {"custom_id": f"row-{number}", "response": None, "error": error, "engine": {"attempts": []}}
        findings.see(json.dumps(record).encode(), ok=False)
    assert findings.first_errors() == ["row-0: connect: no route", "row-2: connect: too slow"]


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


@pytest.fixture
async def busy_run(tmp_path: Path) -> RunDirectory:
    """A primary with two keys that fails every time, a fallback that answers, two priorities."""
    rows = tmp_path / "in.jsonl"
    lines = [{"prompt": f"row {n}", "priority": "high" if n % 3 else "low"} for n in range(30)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    primary = {"kind": "simulated", "name": "first", "keys": 2, "failure_rate": 1.0}
    second = {"kind": "simulated", "name": "second", "latency_s": 0.002, "latency_distribution": "lognormal"}
    spec = RunSpec.model_validate(
        {
            "provider": primary,
            "hardware": {"kind": "cpu"},
            "model": {"name": "m"},
            "workload": {"kind": "jsonl", "path": str(rows)},
            "fallbacks": [{"provider": second, "model": {"name": "m"}, "hardware": {"kind": "cpu"}}],
            "policy": {"retry": {"max_retries": 1, "initial_delay_s": 0.001}, "breaker": {"enabled": False}},
            "output": {"root": str(tmp_path / "out")},
        }
    )
    source = open_source(spec.workload)
    async with Engine(spec) as engine:
        with open_run(spec, source, Provenance(targets=engine.targets)) as run:
            await execute(engine, spec, run, source=source)
    return run


@pytest.mark.slow
async def test_metrics_json_has_targets_models_keys_and_priorities(busy_run: RunDirectory) -> None:
    metrics = json.loads(busy_run.metrics.read_text())
    assert set(metrics["targets"]) == {"first/m", "second/m"}
    assert metrics["targets"]["first/m"]["attempt_outcomes"] == {"server": metrics["targets"]["first/m"]["attempts"]}
    assert metrics["models"]["m"]["outcomes"] == {"ok": 30}
    assert set(metrics["keys"]) == {"sim_1", "sim_2"}
    assert {name: view["requests"] for name, view in metrics["priorities"].items()} == {"high": 20, "low": 10}
    assert (metrics["fallbacks"], metrics["helped"]) == (30, {"fallback": 30})
    assert metrics["cost_unknown"] == 30


@pytest.mark.slow
async def test_both_reports_show_every_view(busy_run: RunDirectory) -> None:
    for path in (busy_run.report_md, busy_run.report_html):
        text = path.read_text()
        for part in ("first/m", "second/m", "sim_1", "high", "low", "server", "30 fallbacks, of which 30 brought"):
            assert part in text, (path.name, part)
        assert "unknown (30 requests)" in text


@pytest.mark.slow
async def test_the_page_draws_the_latencies(busy_run: RunDirectory) -> None:
    page = busy_run.report_html.read_text()
    assert page.count('class="mark') == 3
    assert re.search(r'title="[\d.]+ ms – [\d.]+ ms: \d+ rows"', page)


async def test_a_few_answers_are_not_drawn(run: RunDirectory) -> None:
    assert 'class="plot"' not in run.report_html.read_text()


async def test_the_stages_stand_in_both_reports_also_when_they_are_made_again(run: RunDirectory) -> None:
    metrics = json.loads(run.metrics.read_text())
    metrics["stages"] = {"queue": [{"target": "test/reverse", "queue_waiting": 3, "queue_oldest_s": 0.25}]}
    run.metrics.write_text(json.dumps(metrics))
    rewrite_report(run, None)
    assert "| queue | test/reverse | waiting 3, oldest 250 ms |" in run.report_md.read_text()
    assert "waiting <b>3</b>" in run.report_html.read_text()


async def test_a_report_can_be_made_again_without_metrics(run: RunDirectory) -> None:
    run.metrics.unlink()
    rewrite_report(run, None)
    assert "test/reverse" in run.report_md.read_text()


def test_findings_read_the_stages_of_the_engine_that_served_the_run() -> None:
    resources = Resources()
    resources.get(("queue", "p/m"), lambda: PriorityGate(QueueSpec(concurrency=3), resources.clock))
    (queue,) = Findings(resources).summary(None)["stages"]["queue"]
    assert (queue["target"], queue["queue_waiting"], queue["queue_concurrency"]) == ("p/m", 0, 3)


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        ({"cost": 0.25, "cost_unknown": 0, "attempts": 1}, "$0.2500"),
        ({"cost": 1234.5, "cost_unknown": 2, "attempts": 9}, "at least $1,234.50 (2 requests unknown)"),
        (
            {"cost": 0.5, "cost_estimated": 0.125, "attempts_cost_unknown": 3, "attempts": 9},
            "at least $0.5000 ($0.1250 of it estimated, 3 attempts unknown)",
        ),
        ({"cost": 0.000027, "attempts": 1}, "$0.0000270"),
        ({"cost": None, "cost_unknown": 1, "attempts": 1}, "unknown (1 request)"),
        ({"cost": 0.0, "attempts": 1}, "$0.00"),
        ({"cost": None, "cost_unknown": 0, "attempts": 3}, "nothing"),
        ({"cost": None, "cost_unknown": 0, "attempts": 0}, "–"),
    ],
)
def test_a_cost_that_is_not_known_is_never_nothing(view: dict[str, Any], shown: str) -> None:
    assert dollars(view) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(0, 9, "0 %"), (1, 10**6, "0.01 %"), (9999, 10**4, "99.9 %"), (9, 9, "100 %")]
)
def test_a_share_is_whole_or_nothing_only_when_it_is(part: int, whole: int, shown: str) -> None:
    assert percent(part, whole) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("breaker_state", 2.0, ("state", "open")),
        ("breaker_trips", 4, ("trips", "4")),
        ("queue_oldest_s", 0.5, ("queue oldest", "500 ms")),
        ("cache_hits_total", 12345, ("cache hits", "12,345")),
    ],
)
def test_a_stages_reading_is_said_in_words(name: str, value: float, shown: tuple[str, str]) -> None:
    ((stage, of, readings),) = stage_rows({"breaker": [{"endpoint": "http://host/v1", "model": "m", name: value}]})
    assert (stage, of, readings) == ("breaker", "http://host/v1, m", [shown])
