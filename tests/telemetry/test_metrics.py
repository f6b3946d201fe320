"""engine/telemetry/metrics.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import FAILURES, ServerFailed
from engine.core.request import Attempt, EngineRecord, Request, Result
from engine.core.usage import Usage
from engine.runs.results import payload
from engine.telemetry.metrics import Metrics, model_of
from engine.telemetry.tally import ROLES
from engine.workloads.open import Row


def results() -> list[Result]:
    """One answered at once, one after a retry and a change of target, one failed."""
    return [
        Result("a", body={}, usage=Usage(10, 5), engine=EngineRecord("p/m", [tried("p/m", "ok", 0.2)], total_s=0.3)),
        Result(
            "b",
            body={},
            engine=EngineRecord(
                "q/m",
                [
                    tried("p/m", "server", 0.1),
                    tried("p/m", "server", 0.1, key="K1", role="retry"),
                    tried("q/m", "ok", 0.4, role="fallback"),
                ],
                priority="high",
                queued_s=0.05,
                total_s=0.9,
                cost=0.25,
            ),
        ),
        Result("c", error=ServerFailed("no"), engine=EngineRecord("p/m", [tried("p/m", "server", 0.1)], total_s=0.1)),
    ]


def tried(target: str, outcome: str, duration_s: float, **fields: Any) -> Attempt:
    fields.setdefault("usage", Usage(10, 5) if outcome == "ok" else None)
    return Attempt(target, outcome=outcome, duration_s=duration_s, **fields)


def summary(counted: list[Result] | None = None, wall_s: float | None = 2.0) -> dict[str, Any]:
    metrics = Metrics()
    for result in results() if counted is None else counted:
        metrics.add(result)
    return metrics.summary(wall_s)


def lines_summary(counted: list[Result]) -> dict[str, Any]:
    metrics = Metrics()
    for index, result in enumerate(counted):
        request = Request("chat", {"messages": [{"role": "user", "content": "x"}]})
        row = Row(index, result.id, request, None, b"{}")
        metrics.add_line(payload("run", row, result).split(b"\n")[0])
    return metrics.summary(wall_s=2.0)


def test_outcomes_attempts_and_tokens_are_counted() -> None:
    counted = summary()
    assert (counted["requests"], counted["ok"], counted["failed"]) == (3, 2, 1)
    assert counted["outcomes"] == {"ok": 2, "server": 1}
    assert counted["attempt_outcomes"] == {"ok": 2, "server": 3}
    assert (counted["attempts"], counted["retries"], counted["fallbacks"]) == (5, 1, 1)
    assert counted["tokens"] == {"input": 20, "output": 10}
    assert counted["output_tokens_per_s"] == 5.0


def test_a_request_belongs_to_its_last_target_and_an_attempt_to_its_own() -> None:
    targets = summary()["targets"]
    assert (targets["p/m"]["requests"], targets["p/m"]["attempts"], targets["p/m"]["retries"]) == (2, 4, 1)
    assert (targets["q/m"]["requests"], targets["q/m"]["attempts"], targets["q/m"]["fallbacks"]) == (1, 1, 1)
    assert targets["q/m"]["latency_s"]["p50"] == pytest.approx(0.4, rel=0.01)


def test_a_model_is_the_sum_of_its_targets() -> None:
    models = summary()["models"]
    assert list(models) == ["m"]
    assert (models["m"]["requests"], models["m"]["attempts"], models["m"]["ok"]) == (3, 5, 2)
    assert models["m"]["latency_s"]["count"] == 2


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("groq/llama-3.1-8b-instant", "llama-3.1-8b-instant"),
        ("openrouter/meta/llama-3:free", "meta/llama-3:free"),
        ("local/smollm2-135m@openvino", "smollm2-135m"),
        ("local/smollm2-135m@cpu#2", "smollm2-135m"),
        ("vllm/m#2", "m"),
        ("vertex/claude@20240229", "claude@20240229"),
    ],
)
def test_a_targets_name_says_its_model(target: str, model: str) -> None:
    assert model_of(target) == model


def test_keys_are_counted_apart_by_name() -> None:
    keys = summary()["keys"]
    assert list(keys) == ["K1"]
    assert keys["K1"]["attempt_outcomes"] == {"server": 1}


def test_priorities_are_counted_apart() -> None:
    priorities = summary()["priorities"]
    assert list(priorities) == ["high", "normal"]
    assert (priorities["high"]["requests"], priorities["high"]["attempts"]) == (1, 3)
    assert priorities["high"]["queue_s"]["max"] == 0.05


def test_usage_of_the_result_counts_where_no_attempt_has_any() -> None:
    record = EngineRecord("p/m", [Attempt("p/m", outcome="ok")])
    counted = summary([Result("a", body={}, usage=Usage(7, 3), engine=record)])
    assert counted["targets"]["p/m"]["tokens"] == {"input": 7, "output": 3}


def test_a_reply_that_was_not_asked_for_anew_costs_no_tokens() -> None:
    counted = summary([Result("a", body={}, usage=Usage(7, 3), engine=EngineRecord())])
    assert (counted["ok"], counted["tokens"], counted["cost_unknown"]) == (1, {"input": 0, "output": 0}, 0)


def test_tokens_of_attempts_that_brought_no_answer_are_lost() -> None:
    attempts = [tried("p/m", "truncated", 0.1, usage=Usage(10, 3)), tried("p/m", "ok", 0.1)]
    counted = summary([Result("a", body={}, engine=EngineRecord("p/m", attempts))])
    assert counted["tokens"] == {"input": 20, "output": 8}
    assert counted["lost_tokens"] == {"input": 10, "output": 3}


def test_hedges_and_rescues_are_counted_and_how_many_of_them_helped() -> None:
    hedged = [tried("p/m", "cancelled", 0.5), tried("p/m", "ok", 0.1, role="hedge")]
    rescued = [tried("p/m", "truncated", 0.1), tried("q/m", "ok", 0.1, role="rescue")]
    wasted = [tried("p/m", "ok", 0.5), tried("p/m", "cancelled", 0.1, role="hedge")]
    records = [EngineRecord(attempts[-1].target, attempts) for attempts in (hedged, rescued, wasted)]
    counted = summary([Result("a", engine=record) for record in records])
    assert (counted["hedges"], counted["rescues"], counted["retries"]) == (2, 1, 0)
    assert counted["helped"] == {"hedge": 1, "rescue": 1}


def test_answers_from_the_cache_are_counted() -> None:
    counted = summary([Result("a", engine=EngineRecord(cache="hit")), Result("b", engine=EngineRecord(cache="shared"))])
    assert counted["cached"] == {"hit": 1, "shared": 1}


def test_estimated_tokens_are_counted_and_marked() -> None:
    cut = tried("p/m", "truncated", 0.1, usage=Usage(10, 3, estimated=True))
    counted = summary([Result("a", error=ServerFailed("no"), engine=EngineRecord("p/m", [cut]))])
    assert counted["tokens"]["output"] == 0
    assert counted["tokens_estimated"] == {"attempts": 1, "input": 10, "output": 3}


def test_known_costs_are_summed_and_unknown_ones_counted() -> None:
    known = EngineRecord("p/m", [tried("p/m", "ok", 0.1, cost=0.25)], cost=0.25)
    unknown = EngineRecord("q/m", [tried("q/m", "ok", 0.1)])
    untried = EngineRecord()
    counted = summary([Result("a", engine=known), Result("b", engine=unknown), Result("c", engine=untried)])
    assert (counted["cost"], counted["cost_unknown"]) == (0.25, 1)
    assert (counted["targets"]["q/m"]["cost"], counted["targets"]["q/m"]["cost_unknown"]) == (None, 1)


def test_a_cost_that_only_the_request_knows_is_its_last_targets() -> None:
    targets = summary()["targets"]
    assert (targets["p/m"]["cost"], targets["q/m"]["cost"]) == (None, 0.25)


def test_an_attempts_speed_is_its_output_over_its_duration() -> None:
    record = EngineRecord("p/m", [tried("p/m", "ok", 2.0, usage=Usage(9, 100))])
    assert summary([Result("a", body={}, engine=record)])["tokens_per_s"]["p50"] == pytest.approx(50, rel=0.01)


def test_lines_of_results_count_as_the_results_did() -> None:
    assert lines_summary(results()) == summary()


moments = st.integers(0, 10**8).map(lambda microseconds: microseconds / 10**6)
usages = st.none() | st.builds(
    Usage, st.integers(0, 10**6), st.integers(0, 10**6), st.just(0), st.just(0), st.booleans()
)
attempts = st.builds(
    Attempt,
    target=st.sampled_from(["p/m", "q/m", "local/n@cpu"]),
    key=st.sampled_from([None, "K", "K_1"]),
    role=st.sampled_from(ROLES),
    outcome=st.sampled_from(["ok", *FAILURES]),
    duration_s=moments,
    first_token_s=st.none() | moments,
    usage=usages,
    cost=st.none() | st.floats(0, 10),
)


@st.composite
def any_result(draw: st.DrawFn) -> Result:
    record = EngineRecord(
        attempts=draw(st.lists(attempts, max_size=4)),
        priority=draw(st.sampled_from(["high", "normal", "low"])),
        queued_s=draw(moments),
        total_s=draw(moments),
        first_token_s=draw(st.none() | moments),
        cost=draw(st.none() | st.floats(0, 10)),
        cache=draw(st.sampled_from([None, "hit", "shared"])),
    )
    record.target = record.attempts[-1].target if record.attempts else None
    if draw(st.booleans()):
        return Result("r", error=FAILURES[draw(st.sampled_from(sorted(FAILURES)))]("no"), engine=record)
    spent = draw(st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
    usage = Usage(*spent) if spent else None
    body = {"usage": {"prompt_tokens": spent[0], "completion_tokens": spent[1]}} if spent else {}
    return Result("r", body=body, usage=usage, engine=record)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(any_result(), max_size=12))
def test_both_feeds_give_the_same_figures(counted: list[Result]) -> None:
    assert lines_summary(counted) == summary(counted)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(any_result(), max_size=12))
def test_every_view_adds_up_to_the_whole(counted: list[Result]) -> None:
    whole = summary(counted)
    for view in ("targets", "models", "priorities"):
        groups = whole[view].values()
        assert sum(group["attempts"] for group in groups) == whole["attempts"]
        assert sum(group["tokens"]["output"] for group in groups) == whole["tokens"]["output"]
    assert sum(group["requests"] for group in whole["priorities"].values()) == len(counted)
    assert sum(whole["attempt_outcomes"].values()) == whole["attempts"]
