"""What the command line says of batch jobs before there are any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli import main
from tests.batches.conftest import KEYS
from tests.servers.batch_server import tripwire

pytestmark = pytest.mark.slow


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["TEST_BATCH_KEY"])
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"ask {number}"}) + "\n" for number in range(25)))
    return ["provider=openai", "policy/batch=provider", "workload=jsonl", f"workload.path={rows}"]


def test_a_plan_says_how_many_jobs_at_what_price(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words, "policy.batch.job.max_rows=10"]) == 0
    said = capsys.readouterr().out
    assert (
        "jobs: 3 batch jobs of at most 10 rows and 100000000 bytes, 4 at once, at 0.5 × the price, each within 24h"
        in said
    )
    assert "priorities do not count, rows with a deadline_s go live" in said


def test_a_plan_costs_what_batch_jobs_cost(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    costs = []
    for option in ("provider", "default"):
        main(["plan", "--json", *words, f"policy/batch={option}"])
        costs.append(json.loads(capsys.readouterr().out)["workload"]["cost_usd"])
    assert costs[0] == pytest.approx(costs[1] / 2)


def test_check_reaches_the_batch_api(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with tripwire() as provider:
        assert main(["check", *words, f"provider.base_url={provider.url}/v1"]) == 0
    assert "its batch API answers, 0 jobs in the last 24 h" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("provider=simulated", "provider=simulated is simulated and has no batch API; use policy/batch=default"),
        ("provider=vllm", "provider=vllm has no batch API that is known; use policy/batch=default, or describe it"),
    ],
)
def test_a_provider_without_a_batch_api_is_refused(
    option: str, said: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option, *words[1:], "model=remote", "model.name=m", f"output.root={tmp_path / 'runs'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_users_who_wait_for_answers_cant_fill_a_job(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words[:2], "workload=synthetic", "workload.arrivals=closed"]) == 2
    assert "policy.batch.strategy: users who wait for each answer" in capsys.readouterr().err
