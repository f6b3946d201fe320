"""Ctrl-C leaves jobs at the provider, says how to go on, and how to end them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from engine.cli import main
from tests.batches.conftest import KEYS, Start, results_of, resumed, spec_for
from tests.batches.test_jobs import attempts_of, run
from tests.servers.batch_server import Wire, tripwire

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def test_ctrl_c_leaves_the_job_and_says_how_to_go_on_or_to_cancel(tmp_path: Path, start: Start) -> None:
    with tripwire(takes_s=1.0) as provider:
        spec = spec_for("openai", provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(r"GET /v1/batches/.+", nth=2, signal=signal.SIGINT, pid=child.pid)
        _, said = child.communicate(timeout=20)
        assert child.returncode == 130, said
        assert "batch jobs continue at the provider (batch_1), and a resume takes them up" in said
        assert f"python -m engine runs cancel {tmp_path / 'run'}" in said
        assert f"python -m engine runs resume {tmp_path / 'run'}" in said
        assert run(resumed(spec)).ok == 12
        assert len(provider.jobs()) == 1


def test_ctrl_c_while_a_job_is_being_made_waits_until_it_is_known(tmp_path: Path, start: Start) -> None:
    with tripwire(takes_s=0.5) as provider:
        spec = spec_for("openai", provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(r"POST /v1/batches", "beside", signal=signal.SIGINT, pid=child.pid)
        _, said = child.communicate(timeout=20)
        assert child.returncode == 130
        assert "batch jobs continue at the provider (batch_1)" in said
        assert run(resumed(spec)).ok == 12
        assert len(provider.jobs()) == 1


def test_a_resume_may_answer_the_rest_by_live_calls(tmp_path: Path, start: Start) -> None:
    with tripwire(takes_s=0.4, expired=0.5) as provider:
        spec = spec_for("openai", provider.url, tmp_path, unanswered="dead")
        child = start(spec)
        provider.wire = Wire(r"GET /v1/batches/.+", pid=child.pid)
        child.wait(20)
        spec["policy"]["batch"]["job"]["unanswered"] = "live"
        assert run(resumed(spec)).ok == 12


@pytest.mark.parametrize("api", ["openai", "anthropic", "gemini"])
def test_runs_cancel_ends_the_jobs_and_a_resume_answers_the_rest_by_live_calls(
    api: str, tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with tripwire(takes_s=60.0) as provider:
        spec = spec_for(api, provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(r"GET .*/batches/.+", signal=signal.SIGKILL, pid=child.pid)
        child.wait(20)
        assert main(["runs", "cancel", str(tmp_path / "run")]) == 0
        assert "batch job 1 (" in (said := capsys.readouterr().out)
        assert "cancellation requested" in said
        assert run(resumed(spec)).ok == 12
        assert len(provider.jobs()) == 1
    assert attempts_of(results_of(tmp_path)[-1])[-1] == (False, "ok")
    assert main(["runs", "cancel", str(tmp_path / "run")]) == 0
    assert "no batch job of run is running" in capsys.readouterr().out
    assert main(["runs", "show", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["rows"] == 12


def test_runs_cancel_ends_a_job_that_the_run_never_heard_of(
    tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with tripwire(takes_s=60.0) as provider:
        spec = spec_for("openai", provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(r"POST /v1/batches", "after", pid=child.pid)
        child.wait(20)
        assert main(["runs", "cancel", str(tmp_path / "run")]) == 0
        assert "batch job 1 (batch_1): cancellation requested" in capsys.readouterr().out
        assert "POST /v1/batches/batch_1/cancel" in provider.calls
