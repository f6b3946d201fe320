"""engine/telemetry/metrics.py."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ServerFailed
from engine.request import Attempt, EngineRecord, Request, Result, Usage
from engine.runs.results import payload
from engine.telemetry.metrics import Metrics
from engine.workloads import Row


def results() -> list[Result]:
    """One answered at once, one after a retry and a change of target, one failed."""
    return [
        Result("a", body={}, usage=Usage(10, 5), engine=EngineRecord("p/m", [tried("p/m", "ok", 0.2)], total_s=0.3)),
        Result(
            "b",
            body={},
            engine=EngineRecord(
                "q/m",
                [tried("p/m", "server", 0.1), tried("p/m", "server", 0.1), tried("q/m", "ok", 0.4)],
                priority="high",
                queued_s=0.05,
                total_s=0.9,
                cost=0.25,
            ),
        ),
        Result("c", error=ServerFailed("no"), engine=EngineRecord("p/m", [tried("p/m", "server", 0.1)], total_s=0.1)),
    ]


def tried(target: str, outcome: str, duration_s: float) -> Attempt:
    usage = Usage(10, 5) if outcome == "ok" else None
    return Attempt(target, outcome=outcome, duration_s=duration_s, usage=usage)


def summary() -> dict[str, Any]:
    metrics = Metrics()
    for result in results():
        metrics.add(result)
    return metrics.summary(wall_s=2.0)


def test_outcomes_attempts_and_tokens_are_counted() -> None:
    counted = summary()
    assert (counted["requests"], counted["ok"], counted["failed"]) == (3, 2, 1)
    assert counted["outcomes"] == {"ok": 2, "server": 1}
    assert (counted["attempts"], counted["retries"]) == (5, 2)
    assert counted["tokens"] == {"input": 20, "output": 10}
    assert counted["cost"] == 0.25
    assert counted["output_tokens_per_s"] == 5.0


def test_a_request_belongs_to_its_last_target_and_an_attempt_to_its_own() -> None:
    targets = summary()["targets"]
    assert (targets["p/m"]["requests"], targets["p/m"]["attempts"], targets["p/m"]["retries"]) == (2, 4, 1)
    assert (targets["q/m"]["requests"], targets["q/m"]["attempts"], targets["q/m"]["retries"]) == (1, 1, 0)
    assert targets["q/m"]["latency_s"]["p50"] == pytest.approx(0.4, rel=0.01)


def test_priorities_are_counted_apart() -> None:
    priorities = summary()["priorities"]
    assert list(priorities) == ["high", "normal"]
    assert priorities["high"]["requests"] == 1


def test_usage_of_the_result_counts_where_no_attempt_has_any() -> None:
    metrics = Metrics()
    record = EngineRecord("p/m", [Attempt("p/m", outcome="ok")])
    metrics.add(Result("a", body={}, usage=Usage(7, 3), engine=record))
    assert metrics.summary()["targets"]["p/m"]["tokens"] == {"input": 7, "output": 3}


def test_lines_of_results_count_as_the_results_did() -> None:
    metrics = Metrics()
    for index, result in enumerate(results()):
        request = Request("chat", {"messages": [{"role": "user", "content": "x"}]})
        row = Row(index, result.id, request, None, b"{}")
        metrics.add_line(payload("run", row, result).split(b"\n")[0])
    assert metrics.summary(wall_s=2.0) == summary()
