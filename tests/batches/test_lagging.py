"""A provider that lags: what it does not know yet is asked for again, and no job is paid twice for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.batches.conftest import KEYS, results_of, spec_for
from tests.batches.scripted import ScriptedBatches, serving
from tests.batches.test_jobs import run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def answered(script: ScriptedBatches, folder: Path, **job: Any) -> tuple[int, int]:
    """The rows that were answered and those that failed, of three."""
    with serving(script) as url:
        summary = run(spec_for("openai", url, folder, rows=3, **{"settle_s": 2, **job}))
    return summary.ok, summary.failed


@pytest.mark.parametrize("lag", [{"poll": 1}, {"poll": 4}, {"results": 1}, {"results": 3}, {"poll": 2, "results": 2}])
@pytest.mark.parametrize("status", [404, 410])
def test_what_a_replica_does_not_know_yet_is_asked_for_again(tmp_path: Path, lag: dict[str, int], status: int) -> None:
    script = ScriptedBatches(lag, (status, {"error": {"message": "unknown"}}))
    assert answered(script, tmp_path) == (3, 0)
    assert script.count("POST /v1/batches") == 1
    assert script.count("POST /v1/chat/completions") == 0


def test_answers_that_are_not_named_yet_are_waited_for(tmp_path: Path) -> None:
    script = ScriptedBatches({})
    script.late_files = 3
    assert answered(script, tmp_path) == (3, 0)
    assert script.count("POST /v1/chat/completions") == 0


def test_a_job_that_is_listed_is_not_given_up(tmp_path: Path) -> None:
    script = ScriptedBatches({"poll": 30})
    assert answered(script, tmp_path, settle_s=0.1) == (3, 0)
    assert script.count("POST /v1/batches") == 1


@pytest.mark.parametrize(("unanswered", "ended"), [("job", (0, 3)), ("dead", (0, 3)), ("live", (3, 0))])
def test_jobs_that_are_lost_count_in_max_tries(tmp_path: Path, unanswered: str, ended: tuple[int, int]) -> None:
    script = ScriptedBatches({"poll": 10**6})
    script.listing = False
    assert answered(script, tmp_path, settle_s=0.1, max_tries=2, unanswered=unanswered) == ended
    assert script.count("POST /v1/batches") == 2
    if ended[1]:
        assert "lost" in results_of(tmp_path)[0]["error"]["message"]


def test_results_that_stay_gone_leave_the_rows_unanswered_after_settle_s(tmp_path: Path) -> None:
    script = ScriptedBatches({"results": 10**6})
    assert answered(script, tmp_path, settle_s=0.3, unanswered="dead") == (0, 3)
    assert script.count("GET /v1/files/out-batch_0") > 1


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": {"message": "The file is not ready yet: status pending.", "code": "invalidFileState"}}),
        (400, {"error": {"message": "The File abc is not in an ACTIVE state and usage is not allowed."}}),
        (400, {"error": {"message": "Input file is still being processed"}}),
        (404, {"error": {"message": "No such File object: file-0"}}),
        (409, {"error": {"message": "file has not been processed"}}),
    ],
)
@pytest.mark.parametrize("misses", [{"create": 2}, {"create": 4, "file": 3}])
def test_a_file_that_is_not_ready_is_waited_for(tmp_path: Path, refusal: Any, misses: dict[str, int]) -> None:
    script = ScriptedBatches(misses, refusal, status="uploaded")
    assert answered(script, tmp_path) == (3, 0)
    assert script.count("POST /v1/files") == 1


def test_a_job_is_made_when_its_file_is_ready(tmp_path: Path) -> None:
    script = ScriptedBatches({"file": 3})
    assert answered(script, tmp_path) == (3, 0)
    order = [call for call in script.calls if call in ("GET /v1/files/file-0", "POST /v1/batches")]
    assert order == ["GET /v1/files/file-0"] * 4 + ["POST /v1/batches"]


def test_a_file_that_is_never_ready_fails_the_rows_after_settle_s(tmp_path: Path) -> None:
    script = ScriptedBatches({"create": 10**6}, (400, {"error": {"message": "file not ready"}}))
    assert answered(script, tmp_path, settle_s=0.2) == (0, 3)


def test_a_refusal_for_another_reason_is_not_tried_again(tmp_path: Path) -> None:
    script = ScriptedBatches({"create": 10**6}, (400, {"error": {"message": "unknown parameter: metadata"}}))
    assert answered(script, tmp_path) == (0, 3)
    assert script.count("POST /v1/batches") == 1
