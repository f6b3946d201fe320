"""engine/telemetry/prometheus.py, read by Prometheus's own parser."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY, parser

from engine import Engine
from engine.core.errors import ServerFailed
from engine.core.request import Attempt, EngineRecord, Result
from engine.core.usage import Usage
from engine.telemetry.counted import BOUNDS_S
from engine.telemetry.prometheus import text
from tests.telemetry.served import chat, engine

LABELS = ("key", "priority", "role", "outcome", "how", "type", "le")
"""Those but target and model, in the order in which the tests name their values."""


def families(counted: Engine) -> dict[str, Any]:
    return {family.name: family for family in parser.text_string_to_metric_families(text(counted))}


def samples(counted: Engine, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric, by its labels' values besides target and model."""
    found = {}
    for family in families(counted).values():
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in LABELS if label in sample.labels)] = sample.value
    return found


async def test_requests_and_attempts_are_counters_with_bounded_labels() -> None:
    async with engine() as asked:
        await asked.submit(chat())
        await asked.submit(chat(priority="high"))
    assert samples(asked, "engine_requests_total") == {("normal", "ok"): 1, ("high", "ok"): 1}
    assert samples(asked, "engine_attempts_total") == {("normal", "first", "ok"): 1, ("high", "first", "ok"): 1}
    assert samples(asked, "engine_tokens_total")[("high", "output")] == 8
    family = families(asked)["engine_requests"]
    assert (family.type, family.documentation.startswith("Requests")) == ("counter", True)
    assert family.samples[0].labels["target"] == "simulated/m"
    assert family.samples[0].labels["model"] == "m"


async def test_a_request_that_no_target_took_has_no_target() -> None:
    async with engine() as asked:
        asked.metrics.add(Result("a", error=ServerFailed("no"), engine=EngineRecord()))
    (sample,) = families(asked)["engine_requests"].samples
    assert sample.labels == {"priority": "normal", "outcome": "server"}


async def test_histograms_have_the_bounds_of_the_genai_conventions() -> None:
    async with engine() as asked:
        for duration_s in (0.02, 0.3, 100.0):
            attempt = Attempt("simulated/m", "KEY_1", outcome="ok", duration_s=duration_s, usage=Usage(1, 1))
            record = EngineRecord("simulated/m", [attempt], total_s=duration_s)
            asked.metrics.add(Result("a", engine=record))
    buckets = samples(asked, "engine_attempt_duration_seconds_bucket")
    bounds = [float(labels[-1]) for labels in buckets]
    assert bounds == [*BOUNDS_S, float("inf")]
    assert buckets[("KEY_1", "normal", "0.01")] == 0
    assert buckets[("KEY_1", "normal", "0.02")] == 1
    assert buckets[("KEY_1", "normal", "0.32")] == 2
    assert buckets[("KEY_1", "normal", "81.92")] == 2
    assert buckets[("KEY_1", "normal", "+Inf")] == 3
    assert samples(asked, "engine_attempt_duration_seconds_count") == {("KEY_1", "normal"): 3}
    assert samples(asked, "engine_attempt_duration_seconds_sum")[("KEY_1", "normal")] == pytest.approx(100.32)


async def test_known_costs_are_summed_and_unknown_ones_counted() -> None:
    async with engine() as asked:
        for cost in (0.25, 0.5, None):
            attempt = Attempt("simulated/m", outcome="ok", usage=Usage(1, 1), cost=cost)
            asked.metrics.add(Result("a", engine=EngineRecord("simulated/m", [attempt], cost=cost)))
    assert samples(asked, "engine_cost_dollars_total") == {("normal",): 0.75}
    assert samples(asked, "engine_requests_cost_unknown_total") == {("normal",): 1}


async def test_the_programs_own_registry_is_left_alone() -> None:
    async with engine() as asked:
        await asked.submit(chat())
        text(asked)
    assert not [family for family in REGISTRY.collect() if family.name.startswith("engine_")]
    assert {name for name in families(asked) if not name.startswith("engine_")} == set()


async def test_labels_may_hold_any_text() -> None:
    name = 'p/a "quoted" \\ model\nof two lines'
    async with engine() as asked:
        asked.metrics.add(Result("a", engine=EngineRecord(name)))
    (sample,) = families(asked)["engine_requests"].samples
    assert sample.labels["target"] == name


async def test_the_live_state_of_the_stages_is_told() -> None:
    async with engine() as asked:
        await asked.submit(chat())
    told = {family for family in families(asked) if not family.startswith(("engine_request", "engine_attempt"))}
    assert "engine_queue_waiting" in told
    assert samples(asked, "engine_queue_waiting") == {(): 0}


@pytest.mark.parametrize(
    ("stage", "name", "metric"),
    [
        ("queue", "queue_waiting", "engine_queue_waiting"),
        ("queue", "queue_evicted", "engine_queue_evicted_total"),
        ("breaker", "trips", "engine_breaker_trips_total"),
        ("keys", "key_turns_total", "engine_key_turns_total"),
        ("budget", "retry_budget_tokens", "engine_retry_budget_tokens"),
    ],
)
async def test_a_readings_metric_names_its_stage_once_and_ends_in_total_if_it_grows(
    stage: str, name: str, metric: str
) -> None:
    class Shared:
        def gauges(self) -> dict[str, float]:
            return {name: 4.0}

    async with engine() as asked:
        asked.resources.get((stage, "another/m"), Shared)
    grows = metric.endswith("_total")
    family = families(asked)[metric.removesuffix("_total")]
    (told,) = [sample for sample in family.samples if "another/m" in sample.labels.values()]
    assert (told.name, told.value, family.type) == (metric, 4.0, "counter" if grows else "gauge")
