"""Results are written whatever a provider's reply holds; statistics that can't be made are a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.request import Attempt, EngineRecord, Request, Result
from engine.core.usage import Usage
from engine.runs import Summary, execute, open_run
from engine.runs.report import Findings, _answer, _question
from engine.workloads.open import open_source
from tests.runs.checks import lines_of
from tests.runs.child_run import spec_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("choices", "data", "usage", "audio", "text", "output", "message", "content", "embedding", "tool_calls")
BODIES = st.dictionaries(
    st.sampled_from(FIELDS),
    st.recursive(JSON, lambda inner: st.lists(st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3), max_size=3)),
    max_size=4,
)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Echoing:
    """Answers each row with the body that is given."""

    def __init__(self, body: Any, target: str = "t/m") -> None:
        self.body = body
        self.target = target

    def drain(self) -> None:
        """Nothing waits."""

    async def submit(self, request: Request) -> Result:
        attempt = Attempt(self.target, outcome="ok", duration_s=0.01, usage=Usage(1, 1))
        return Result(request.id or "", self.body, engine=EngineRecord(self.target, [attempt]))


def written(folder: Path, rows: int) -> Path:
    """A workload of so many rows in a new folder."""
    folder.mkdir(parents=True)
    path = folder / "in.jsonl"
    path.write_text("".join(f'{{"prompt": "p{number}"}}\n' for number in range(rows)))
    return path


async def answered(folder: Path, engine: Any, rows: int = 2, **options: Any) -> tuple[Summary, Path]:
    spec = spec_of(str(written(folder, rows)), str(folder), dir=str(folder / "run"), **options)
    source = open_source(spec.workload)
    with open_run(spec, source) as run:
        return await execute(engine, spec, run, source=source), run.path


@pytest.mark.parametrize("usage", [[], "12", 12.5, True, {"prompt_tokens": 7.5}, {"prompt_tokens": "seven"}, -1, None])
async def test_a_usage_of_any_form_leaves_a_run_with_results_and_a_report(tmp_path: Path, usage: Any) -> None:
    message = {"role": "assistant", "content": "fine"}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    summary, path = await answered(tmp_path / "w", Echoing(body))
    assert (summary.exit_code, summary.ok) == (0, 2)
    assert [line["response"]["body"]["usage"] for line in lines_of(path / "results.jsonl")] == [usage, usage]
    assert "fine" in (path / "report.md").read_text()


@pytest.mark.slow
@QUICK
@given(body=BODIES)
async def test_any_json_in_a_reply_is_a_result_and_has_a_report(
    tmp_path_factory: pytest.TempPathFactory, body: dict[str, Any]
) -> None:
    summary, path = await answered(tmp_path_factory.mktemp("any") / "w", Echoing(body), rows=1)
    assert (summary.exit_code, summary.ok) == (0, 1)
    assert (path / "results.jsonl").read_bytes().count(b"\n") == 1
    assert "could not be made" not in (path / "report.md").read_text()


@QUICK
@given(body=BODIES, response=JSON)
def test_any_reply_and_any_request_have_a_text_for_the_report(body: Any, response: Any) -> None:
    assert isinstance(_answer({"response": {"body": body}}), str)
    assert isinstance(_answer({"response": response}), str)
    assert isinstance(_question(body), str)
    for name in ("messages", "prompt", "input"):
        assert isinstance(_question({name: response}), str)
        assert isinstance(_question({name: [response]}), str)
        assert isinstance(_question({name: [{"content": [response, {"text": response}]}]}), str)


@QUICK
@given(line=JSON)
def test_a_line_that_cannot_be_read_counts_as_unknown(line: Any) -> None:
    findings = Findings()
    findings.see(msgspec.json.encode(line), ok=True)
    findings.see(b"{", ok=False)
    summary = findings.summary(1.0)
    assert summary["requests"] == 2
    assert summary["ok"] == 1
    assert summary["cost"] is None


async def test_a_report_that_cannot_be_made_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A defect that no reply is known to cause any more.
    monkeypatch.setattr("engine.runs.report._answer", lambda record: 1 / 0)
    summary, path = await answered(tmp_path / "w", Echoing({"choices": []}))
    assert (summary.exit_code, summary.ok) == (0, 2)
    assert len(lines_of(path / "results.jsonl")) == 2
    assert json.loads((path / "manifest.json").read_text())["status"] == "finished"
    report = (path / "report.md").read_text()
    assert "could not be made: ZeroDivisionError" in report
    assert "runs report" in report
