"""kill -9 at each step of a job's life, then a resume: every row is asked once, wherever the job can be found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.batches.conftest import Start, results_of, resumed, spec_for
from tests.servers.batch_server import When, Wire, tripwire

pytestmark = pytest.mark.slow

STEPS: list[tuple[str, str, When, int]] = [
    # api, call, when, and which such call
    ("openai", r"POST /v1/files", "before", 1),
    ("openai", r"POST /v1/files", "after", 1),
    ("openai", r"POST /v1/batches", "before", 1),
    ("openai", r"POST /v1/batches", "after", 1),
    ("openai", r"GET /v1/batches/.+", "after", 2),
    ("openai", r"GET /v1/files/.+/content", "within", 1),
    ("openai", r"GET /v1/files/.+/content", "after", 1),
    ("anthropic", r"POST /v1/messages/batches", "before", 1),
    ("anthropic", r"POST /v1/messages/batches", "after", 1),
    ("anthropic", r"GET /v1/messages/batches/[^/]+", "after", 2),
    ("anthropic", r"GET /v1/messages/batches/.+/results", "within", 1),
    ("gemini", r"POST /v1beta/models/.+:batchGenerateContent", "before", 1),
    ("gemini", r"POST /v1beta/models/.+:batchGenerateContent", "after", 1),
    ("gemini", r"GET /v1beta/batches/.+", "within", 3),
]


@pytest.mark.parametrize(("api", "call", "when", "nth"), STEPS, ids=lambda value: str(value))
def test_a_killed_run_goes_on_without_asking_twice(
    api: str, call: str, when: When, nth: int, tmp_path: Path, start: Start
) -> None:
    with tripwire(takes_s=0.3) as provider:
        spec = spec_for(api, provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(call, when, nth, pid=child.pid)
        assert child.wait(20) == -9, child.communicate()
        assert provider.wire.tripped.is_set()
        again = start(resumed(spec))
        out, said = again.communicate(timeout=20)
        assert (again.returncode, out.strip()) == (0, "rows 12 ok 12 failed 0"), said
        assert sorted(provider.prompts()) == sorted(f"ask {number}" for number in range(12))
        assert len(provider.jobs()) == 1
    assert [line["custom_id"] for line in results_of(tmp_path)] == [f"c{number}" for number in range(12)]
    assert all(line["engine"]["attempts"][-1]["batch"] for line in results_of(tmp_path))


def test_a_resume_says_that_nothing_is_asked_again(tmp_path: Path, start: Start) -> None:
    with tripwire(takes_s=0.3) as provider:
        spec = spec_for("openai", provider.url, tmp_path)
        child = start(spec)
        provider.wire = Wire(r"GET /v1/batches/.+", pid=child.pid)
        child.wait(20)
        _, said = start(resumed(spec)).communicate(timeout=20)
    assert "0 rows are recorded; at most 0 calls may be repeated" in said
    assert "batch job 1: taken up again, 12 of its 12 rows are to come" in said


def test_of_several_jobs_only_what_is_missing_is_sent(tmp_path: Path, start: Start) -> None:
    with tripwire(takes_s=0.5) as provider:
        spec = spec_for("openai", provider.url, tmp_path, max_rows=5, max_jobs=1)
        child = start(spec)
        provider.wire = Wire(r"POST /v1/batches", "after", 2, pid=child.pid)
        child.wait(20)
        again = start(resumed(spec))
        assert again.wait(20) == 0, again.communicate()
        assert [len(job["requests"]) for job in provider.jobs()] == [5, 5, 2]
        assert len(set(provider.prompts())) == 12
    jobs = json.loads((tmp_path / "run" / "metrics.json").read_text())["jobs"]
    assert [(job["state"], job["answered"]) for job in jobs if job["state"] != "void"] == [
        ("made", 5), ("made", 5), ("made", 2),
    ]  # fmt: skip
