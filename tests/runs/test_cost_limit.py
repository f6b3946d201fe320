"""A run that may spend only so much: it stops, says why, and goes on when it may spend more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main
from engine.core.request import Attempt
from engine.core.usage import Usage
from engine.runs.cost_limit import CostLimit
from tests.runs.checks import lines_of

PRICED = ("provider.price.input=0", "provider.price.output=1000")
"""An answer of 10 tokens costs a cent."""


USED = Usage(1, 1)


def attempt(cost: float | None, usage: Usage | None = USED, outcome: str = "ok") -> Attempt:
    return Attempt("p/m", outcome=outcome, usage=usage, cost=cost)


@pytest.mark.parametrize(
    ("attempts", "reached"),
    [
        ([attempt(0.5), attempt(0.499999)], False),
        ([attempt(0.5), attempt(0.5)], True),
        ([attempt(0.1), attempt(None, None, "throttled")], False),
        ([attempt(None)], True),
        ([attempt(None, None)], True),
    ],
)
def test_the_limit_is_reached_by_costs_and_by_what_is_not_known(attempts: list[Attempt], reached: bool) -> None:
    spending = CostLimit(1.0)
    spending.add(attempts)
    assert spending.reached == reached
    assert (spending.reason.count("output.max_cost_usd") == 2) == (attempts[-1].cost is None and reached)


def test_without_a_limit_nothing_is_reached() -> None:
    spending = CostLimit(None)
    spending.add([attempt(1e6), attempt(None)])
    assert not spending.reached


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str]:
        code = main(
            ["provider=simulated", "provider.output_tokens=10", "provider.latency_s=1", "workload=synthetic", *words]
        )
        return code, capsys.readouterr().err

    return run


@pytest.mark.slow
def test_a_run_stops_at_its_limit_and_goes_on_with_a_higher_one(simulate: Any, tmp_path: Path) -> None:
    words = ("workload.duration_s=60", "workload.rate_per_s=10", "policy.queue.concurrency=4", *PRICED)
    code, said = simulate(*words, f"output.dir={tmp_path / 'run'}", "output.max_cost_usd=1")
    assert code == 7
    assert "are spent, the limit is $1.0000 (output.max_cost_usd); raise it to continue" in said
    assert f"python -m engine runs resume {tmp_path / 'run'} output.max_cost_usd=…" in said
    manifest = json.loads((tmp_path / "run/manifest.json").read_bytes())
    assert manifest["status"] == "spent"
    # Those that were in flight are paid for, too; none that waited in the queue.
    assert 100 <= manifest["ok"] <= 104
    resume = ["runs", "resume", str(tmp_path / "run")]
    assert main(resume) == 7
    assert json.loads((tmp_path / "run/manifest.json").read_bytes())["ok"] == manifest["ok"]
    assert main([*resume, "output.max_cost_usd=100"]) == 0
    rows = lines_of(tmp_path / "run/results.jsonl")
    metrics = json.loads((tmp_path / "run/metrics.json").read_bytes())
    assert metrics["cost"] == pytest.approx(len(rows) / 100, abs=1e-9)


@pytest.mark.slow
def test_a_run_whose_costs_are_not_known_can_not_keep_a_limit(simulate: Any, tmp_path: Path) -> None:
    code, said = simulate(f"output.dir={tmp_path / 'run'}", "output.max_cost_usd=1")
    assert code == 7
    assert "the cost of simulated/simulated is not known, so output.max_cost_usd can't be kept" in said


@pytest.mark.slow
def test_a_resume_changes_nothing_but_where_and_how_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["provider=simulated", f"output.dir={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    for change, said in (
        ("output.max_cost_usd=-1", "output.max_cost_usd=-1: Input should be greater than 0"),
        ("output.max_cost=1", "did you mean max_cost_usd?"),
        ("model.name=x", "model.name=x: a resume changes nothing but output.KEY=VALUE"),
    ):
        assert main(["runs", "resume", str(tmp_path / "run"), change]) == 2
        assert said in capsys.readouterr().err
