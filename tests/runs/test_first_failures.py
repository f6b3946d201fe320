"""A mistake in the setup fails every row alike: the run stops after the first ones, and none is used up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import (
    ConnectFailed,
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    SetupError,
    TooLong,
)
from engine.core.request import Attempt, EngineRecord, Request, Result
from engine.runs import Summary, execute, open_run
from engine.runs.first_failures import FirstFailures
from engine.schemas import RunSpec
from engine.workloads.open import open_source
from tests.runs.checks import lines_of
from tests.runs.child_run import spec_of
from tests.runs.test_statistics import written


class Failing:
    """Fails each row with what `errors` has for its index, and answers all others."""

    def __init__(self, errors: Any) -> None:
        self.errors = errors
        self.calls = 0

    def drain(self) -> None:
        """Nothing waits."""

    async def submit(self, request: Request) -> Result:
        index, self.calls = self.calls, self.calls + 1
        error: InferenceError | None = self.errors(index)
        attempt = Attempt("t/m", outcome=error.kind if error else "ok", duration_s=0.01)
        record = EngineRecord("t/m", [attempt], total_s=0.01)
        return Result(request.id or "", None if error else {"choices": []}, error=error, engine=record)


async def run_of(folder: Path, engine: Failing, rows: int, resume: bool = False, **output: Any) -> Summary:
    workload = folder / "in.jsonl" if resume else written(folder, rows)
    options = {"resume": str(folder / "run")} if resume else {"dir": str(folder / "run")}
    plain = spec_of(str(workload), str(folder), **options).model_dump(mode="json")
    plain["output"] |= output
    plain["provider"] = {"kind": "remote", "name": "x", "base_url": "http://127.0.0.1:1/v1"}
    spec = RunSpec.model_validate(plain)
    source = open_source(spec.workload)
    with open_run(spec, source) as run:
        return await execute(engine, spec, run, source=source)


def unknown_model(index: int) -> InferenceError:
    return InvalidRequest(f"HTTP 404: the model `m` does not exist (request req-{index}a7)", status=404)


@pytest.mark.parametrize("window", [1, 4, None])
async def test_rows_that_all_fail_alike_stop_the_run_and_are_not_used_up(tmp_path: Path, window: int | None) -> None:
    folder, engine = tmp_path / "w", Failing(unknown_model)
    with pytest.raises(SetupError, match=r"first 20 rows all failed alike.*the model `m` does not exist") as caught:
        await run_of(folder, engine, 400, window=window)
    assert "runs resume" in str(caught.value)
    assert engine.calls < 400
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert (manifest["status"], manifest["ok"], manifest["failed"]) == ("failed", 0, 0)
    summary = await run_of(folder, Failing(lambda index: None), 400, resume=True)
    assert (summary.ok, summary.failed) == (400, 0)


async def test_it_can_be_told_to_go_on(tmp_path: Path) -> None:
    summary = await run_of(tmp_path / "w", Failing(unknown_model), 60, max_alike=None)
    assert summary.failed == 60
    assert len(lines_of(tmp_path / "w" / "run" / "dead.jsonl")) == 60


@pytest.mark.parametrize(
    "errors",
    [
        lambda index: unknown_model(index) if index != 7 else None,
        lambda index: unknown_model(index) if index != 7 else ConnectFailed("no route"),
        lambda index: unknown_model(index) if index < 19 else None,
        lambda index: TooLong("5 tokens too many"),
        lambda index: ContentFiltered("no"),
        lambda index: InvalidRequest("a lacks b" if index % 2 else "b lacks a"),
    ],
)
async def test_rows_that_differ_or_are_themselves_at_fault_are_recorded(tmp_path: Path, errors: Any) -> None:
    summary = await run_of(tmp_path / "w", Failing(errors), 60, window=16)
    failed = sum(errors(index) is not None for index in range(60))
    assert (summary.ok, summary.failed) == (60 - failed, failed)
    lines = lines_of(tmp_path / "w" / "run" / "results.jsonl")
    assert [line["custom_id"] for line in lines] == [f"row-{number}" for number in range(1, 61)]


@pytest.mark.parametrize("rows", [1, 19])
async def test_a_workload_that_is_smaller_fails_as_a_whole(tmp_path: Path, rows: int) -> None:
    summary = await run_of(tmp_path / "w", Failing(unknown_model), rows, window=2)
    assert (summary.exit_code, summary.failed) == (3, rows)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["ok", "a", "b", "too_long"]), max_size=30), st.integers(1, 6))
def test_every_row_is_recorded_once_unless_the_run_stops(kinds: list[str], most: int) -> None:
    first, recorded = FirstFailures(most), []
    for index, kind in enumerate(kinds):
        error = None if kind == "ok" else TooLong("x") if kind == "too_long" else InvalidRequest(kind)
        result = Result("r", error=error, engine=EngineRecord(attempts=[Attempt("t/m")]))
        if not first.hold(result, lambda index=index: recorded.append(index)):  # type: ignore[misc]
            recorded.append(index)
        if first.reached:
            own = [kind for kind in kinds[: index + 1] if kind != "too_long"]
            assert own in (["a"] * most, ["b"] * most)
            return
    first.release()
    assert sorted(recorded) == list(range(len(kinds)))
