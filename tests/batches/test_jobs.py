"""Runs through the three batch APIs, when all goes well and when it does not, against the simulated provider."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.core.errors import ConfigError, SetupError
from engine.runs import execute, open_run
from engine.runs.runner import Summary
from engine.schemas import RunSpec
from engine.workloads.open import open_source
from tests.batches.conftest import APIS, KEYS, results_of, resumed, spec_for
from tests.servers.batch_server import Tripwire, tripwire

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


class Notes:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, total: int | None, done: int) -> None: ...
    def add(self, result: Any) -> None: ...
    def close(self) -> None: ...

    def note(self, text: str) -> None:
        self.lines.append(text)


def run(spec: dict[str, Any], notes: Notes | None = None) -> Summary:
    made = RunSpec.model_validate(spec)
    source = open_source(made.workload, made.model.tasks)

    async def main() -> Summary:
        async with Engine(made) as engine:
            with open_run(made, source) as directory:
                return await execute(engine, made, directory, source=source, progress=notes)

    return asyncio.run(main())


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads((folder / "run" / "metrics.json").read_text())["jobs"]
    return jobs


def attempts_of(line: dict[str, Any]) -> list[tuple[bool, str]]:
    return [(attempt.get("batch", False), attempt["outcome"]) for attempt in line["engine"]["attempts"]]


def check_once(provider: Tripwire, rows: int = 12) -> None:
    assert sorted(provider.prompts()) == sorted(f"ask {number}" for number in range(rows))


@pytest.mark.parametrize("api", APIS)
def test_results_in_any_order_find_their_rows(api: str, tmp_path: Path) -> None:
    with tripwire(provider={"output_tokens": 3}) as provider:
        summary = run(spec_for(api, provider.url, tmp_path))
        check_once(provider)
    assert (summary.ok, summary.failed) == (12, 0)
    lines = results_of(tmp_path)
    assert [line["custom_id"] for line in lines] == [f"c{number}" for number in range(12)]
    for line in lines:
        assert line["response"]["body"]["choices"][0]["message"]["content"] == "[simulated] word2 word3"
        attempt = line["engine"]["attempts"][0]
        assert attempt["batch"] is True
        assert attempt["usage"] == {"input_tokens": 2, "output_tokens": 3}
        assert attempt["why"].startswith("batch job ")


@pytest.mark.parametrize("api", APIS)
def test_a_job_whose_creation_got_no_reply_is_found_and_not_sent_again(api: str, tmp_path: Path) -> None:
    with tripwire(lost_replies=1, takes_s=0.1) as provider:
        assert run(spec_for(api, provider.url, tmp_path, settle_s=5)).ok == 12
        assert len(provider.jobs()) == 1
        check_once(provider)


def test_a_job_that_is_not_listed_at_once_is_waited_for(tmp_path: Path) -> None:
    with tripwire(lost_replies=1, unlisted_s=0.3) as provider:
        assert run(spec_for("openai", provider.url, tmp_path, settle_s=5)).ok == 12
        assert len(provider.jobs()) == 1


def test_two_jobs_of_the_same_size_are_told_apart_by_their_results(tmp_path: Path) -> None:
    with tripwire(lost_replies=2, takes_s=0.2) as provider:
        assert run(spec_for("anthropic", provider.url, tmp_path, max_rows=6, settle_s=5)).ok == 12
        assert len(provider.jobs()) == 2
        check_once(provider)


@pytest.mark.parametrize("api", APIS)
def test_rows_that_expired_are_answered_by_live_calls(api: str, tmp_path: Path) -> None:
    with tripwire(expired=0.25) as provider:
        assert run(spec_for(api, provider.url, tmp_path)).ok == 12
    lines = results_of(tmp_path)
    assert all(attempts_of(line) == [(True, "ok")] for line in lines[:9])
    for line in lines[9:]:
        (first, outcome), last = attempts_of(line)
        assert first
        assert outcome in ("timeout", "server")  # Gemini says nothing of a row that it did not get to
        assert last == (False, "ok")
        retried = line["engine"]["attempts"][1]
        assert (retried["role"], retried["why"]) == ("retry", f"a batch job left it unanswered: {outcome}")
    assert [(job["answered"], job["failed"], job["again"]) for job in jobs_of(tmp_path)] == [(9, 0, 3)]


def test_rows_that_expired_go_into_another_job(tmp_path: Path) -> None:
    with tripwire(expired=0.25) as provider:
        assert run(spec_for("openai", provider.url, tmp_path, unanswered="job", max_tries=10)).ok == 12
        assert [len(job["requests"]) for job in provider.jobs()] == [12, 3]
    assert attempts_of(results_of(tmp_path)[-1]) == [(True, "timeout"), (True, "ok")]


def test_rows_that_every_job_leaves_unanswered_are_dead_letters(tmp_path: Path) -> None:
    with tripwire(expired=1.0) as provider:
        summary = run(spec_for("openai", provider.url, tmp_path, rows=2, unanswered="job", max_tries=2))
        assert len(provider.jobs()) == 2
    assert (summary.ok, summary.failed) == (0, 2)
    line = results_of(tmp_path)[0]
    assert line["error"]["kind"] == "timeout"
    assert "unanswered in 2 batch jobs (policy.batch.job.max_tries)" in line["engine"]["warnings"]


def test_rows_that_expired_can_be_left_as_dead_letters(tmp_path: Path) -> None:
    with tripwire(expired=0.5) as provider:
        summary = run(spec_for("anthropic", provider.url, tmp_path, rows=4, unanswered="dead"))
    assert (summary.ok, summary.failed) == (2, 2)
    assert results_of(tmp_path)[-1]["error"]["message"] == "the batch expired before this request was processed"


@pytest.mark.parametrize("api", APIS)
def test_results_that_are_missing_or_there_twice_harm_nothing(api: str, tmp_path: Path) -> None:
    with tripwire(missing=0.3, doubled=0.3) as provider:
        assert run(spec_for(api, provider.url, tmp_path, rows=40)).ok == 40
    assert len(results_of(tmp_path)) == 40


@pytest.mark.parametrize("api", APIS)
def test_a_request_that_the_provider_refuses_is_a_dead_letter_with_its_words(api: str, tmp_path: Path) -> None:
    faults = {"faults": [{"kind": "invalid_request", "rate": 0.5}]}
    with tripwire(provider=faults) as provider:
        summary = run(spec_for(api, provider.url, tmp_path, rows=30))
    assert 0 < summary.failed < 30
    failed = [line for line in results_of(tmp_path) if line["error"]]
    assert {line["error"]["kind"] for line in failed} == {"invalid_request"}
    assert "the request is not valid" in failed[0]["error"]["message"]
    assert attempts_of(failed[0]) == [(True, "invalid_request")]
    assert jobs_of(tmp_path)[0]["failed"] == summary.failed


def test_lines_that_make_a_job_fail_are_dead_letters_and_the_others_go_on(tmp_path: Path) -> None:
    with tripwire(bad_lines=[2, 5]) as provider:
        summary = run(spec_for("openai", provider.url, tmp_path))
        assert [len(job["requests"]) for job in provider.jobs()] == [12, 10]
    assert (summary.ok, summary.failed) == (10, 2)
    failed = {line["custom_id"]: line["error"]["message"] for line in results_of(tmp_path) if line["error"]}
    assert failed == {"c1": "simulated: line 2 is not valid", "c4": "simulated: line 5 is not valid"}


@pytest.mark.parametrize("api", APIS)
def test_a_full_queue_at_the_provider_is_waited_for(api: str, tmp_path: Path) -> None:
    with tripwire(crowded=2) as provider:
        assert run(spec_for(api, provider.url, tmp_path)).ok == 12
    assert all(attempts_of(line) == [(True, "ok")] for line in results_of(tmp_path))


def test_a_key_that_is_refused_gives_way_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_BATCH_KEY_1", "sim_1")
    with tripwire(provider={"keys": 1}) as provider:
        assert run(spec_for("openai", provider.url, tmp_path)).ok == 12
        assert [job["key"] for job in provider.jobs()] == ["sim_1"]
    assert jobs_of(tmp_path)[0]["key"] == "TEST_BATCH_KEY_1"


def test_a_run_without_a_key_that_works_stops_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tripwire(provider={"keys": 1}) as provider:
        spec = spec_for("openai", provider.url, tmp_path)
        with pytest.raises(SetupError, match=r"no key is left to make a batch job with: TEST_BATCH_KEY: auth"):
            run(spec)
        assert not any(KEYS["TEST_BATCH_KEY"] in file.read_text("latin-1") for file in (tmp_path / "run").iterdir())
        monkeypatch.setenv("TEST_BATCH_KEY", "sim_1")
        assert run(resumed(spec)).ok == 12
        check_once(provider)


def test_rows_that_cant_wait_or_dont_fit_are_answered_by_live_calls(tmp_path: Path) -> None:
    lines = [
        {"custom_id": "in a hurry", "prompt": "ask 0", "deadline_s": 30},
        {"custom_id": "many", "task": "embedding", "input": ["ask 1", "ask 2"]},
        {"custom_id": "one", "task": "embedding", "input": "ask 3"},
        {"custom_id": "large", "prompt": "ask 4 " + "x" * 3000},
        {"custom_id": "first", "prompt": "ask 5", "priority": "high"},
    ]
    notes = Notes()
    with tripwire() as provider:
        assert run(spec_for("gemini", provider.url, tmp_path, lines=lines, max_bytes=2000), notes).ok == 5
        assert sorted(provider.prompts()) == ["ask 3", "ask 5"]
    live = [not line["engine"]["attempts"][0].get("batch", False) for line in results_of(tmp_path)]
    assert live == [True, True, False, True, False]
    assert "rows with a deadline_s can't wait for a batch job; they are answered by live calls" in notes.lines
    assert "priorities count for live calls only; the rows of a batch job are all alike" in notes.lines
    assert "rows that can't go into a batch job, by their form or size, are answered by live calls" in notes.lines


def test_a_row_that_is_wrong_costs_no_job(tmp_path: Path) -> None:
    lines = [{"custom_id": "bad", "prompt": "ask 0", "temperature": "hot"}, {"custom_id": "good", "prompt": "ask 1"}]
    with tripwire() as provider:
        summary = run(spec_for("openai", provider.url, tmp_path, lines=lines))
        assert provider.prompts() == ["ask 1"]
    assert (summary.ok, summary.failed) == (1, 1)


def test_a_large_job_goes_as_a_file_and_comes_back_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"custom_id": f"c{number}", "prompt": f"ask {number} " + "x" * 950_000} for number in range(20)]
    with tripwire() as provider:
        spec = spec_for("gemini", provider.url, tmp_path, lines=lines)
        assert run(spec).ok == 20
        assert "POST /upload/v1beta/files" in provider.calls
        assert any(call.startswith("GET /download/v1beta/files/") for call in provider.calls)
        check_once(provider, 20)


def test_a_job_that_is_too_large_is_split(tmp_path: Path) -> None:
    with tripwire(max_bytes=700) as provider:
        assert run(spec_for("openai", provider.url, tmp_path)).ok == 12
        assert len(provider.jobs()) > 3
        check_once(provider)


def test_the_answers_of_a_job_cost_what_the_price_list_says_of_jobs(tmp_path: Path) -> None:
    price = {"input": 1.0, "output": 2.0, "batch": 0.5}
    with tripwire(provider={"output_tokens": 3}) as provider:
        run(spec_for("openai", provider.url, tmp_path, provider={"price": price}))
    line = results_of(tmp_path)[0]
    assert line["engine"]["attempts"][0]["cost"] == pytest.approx((2 * 1.0 + 3 * 2.0) / 1e6 / 2)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["cost"] == pytest.approx(12 * 4e-6)


def test_a_provider_without_a_batch_api_is_refused_before_anything_is_begun(tmp_path: Path) -> None:
    from engine.batches.operations import check

    spec = RunSpec.model_validate(spec_for("openai", "http://127.0.0.1:9", tmp_path, provider={"batch": None}))
    with pytest.raises(ConfigError, match=r"provider=openai has no batch API that is known; use policy/batch=default"):
        check(spec, open_source(spec.workload))
