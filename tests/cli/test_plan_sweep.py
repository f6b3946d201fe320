"""`engine plan -m`: the cells of a sweep, the invalid ones with their reason, and the sum."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engine.cli.main import main


@pytest.mark.slow
def test_a_cell_is_a_line_with_its_targets_estimates_or_reason(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["provider=simulated,simulatd", "policy.queue.concurrency=8,32", "policy.retry.max_retries=2"]
    assert main(["plan", "-m", *words]) == 3
    heads, *cells, last = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", heads) == [
        "cell", "provider", "policy.queue.concurrency", "state", "rows", "calls at most", "tokens in",
        "tokens out at most", "cost at most", "targets", "reason",
    ]  # fmt: skip
    assert [line.split()[:6] for line in cells[:2]] == [
        ["1", "simulated", "8", "ok", "8", "40"],
        ["2", "simulated", "32", "ok", "8", "40"],
    ]
    assert len(cells) == 4
    assert all(line.endswith("simulated/simulated") for line in cells[:2])
    assert all("invalid" in line and "provider=simulatd: " in line for line in cells[2:])
    assert all("did you mean simulated" in line for line in cells[2:])
    assert last.startswith("2 of 4 cells can start: 16 rows, at most 80 calls, about ")
    assert last.endswith("cost: at most $0.00")


def test_a_sweep_that_can_start_ends_with_0_and_is_data_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "provider=simulated", "provider.output_tokens=2,4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [cell["choices"]["provider.output_tokens"] for cell in plan["cells"]] == ["2", "4"]
    assert [cell["state"] for cell in plan["cells"]] == ["ok", "ok"]
    assert plan["cells"][0]["targets"] == ["simulated/simulated"]
    assert plan["sum"]["requests"] == 16
    assert plan["sum"]["input_tokens_estimate"] == sum(cell["input_tokens_estimate"] for cell in plan["cells"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "states"),
    [
        (["provider=simulatd,simulatedd"], 2, ["invalid", "invalid"]),
        (["provider=openai,groq"], 4, ["blocked", "blocked"]),
        (["provider=openai,simulated"], 3, ["blocked", "ok"]),
        (["provider=simulatd,openai"], 2, ["invalid", "blocked"]),
    ],
)
def test_the_exit_code_says_whether_all_some_or_no_cells_can_start(
    words: list[str],
    code: int,
    states: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "GROQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["plan", "-m", *words, "--json"]) == code
    plan = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in plan["cells"]] == states
    assert all(bool(cell["problems"]) == (cell["state"] != "ok") for cell in plan["cells"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (["policy=off"], 8),
        (["policy.retry.max_retries=2"], 40),
        (["policy.retry.max_retries=2", "policy.retry.max_throttle_retries=0"], 24),
        (["policy.retry.max_retries=2", "policy.budget.max_attempts=3"], 24),
        (
            ["policy.retry.max_retries=2", "policy.retry.max_throttle_retries=0", "fallbacks=[{provider: simulated}]"],
            48,
        ),
        (["policy=interactive", "policy.hedge.enabled=true", "policy.hedge.max_hedges=2"], 24),
    ],
)
def test_calls_at_most_count_retries_hedges_and_fallbacks(
    words: list[str], calls: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "provider=simulated", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workload"]["calls_at_most"] == calls


def test_a_secret_in_an_invalid_cell_is_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary0f9b7kq2x")
    assert main(["plan", "-m", "provider=canary0f9b7kq2x,simulated"]) in (2, 3)
    shown = capsys.readouterr()
    assert "canary0f9b7kq2x" not in shown.out + shown.err
