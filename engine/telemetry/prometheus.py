"""What an engine has counted, in the text format of Prometheus, version 0.0.4.

Source: prometheus.io, "Exposition formats". Names and bounds are valid in OpenMetrics as well. The number of series is
bounded by the run spec: targets, their keys, three priorities, and the words of the closed vocabularies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from engine.core.prices import PICO
from engine.core.request import Usage
from engine.core.resources import Resources
from engine.telemetry.gauges import Reading, readings
from engine.telemetry.histogram import Histogram
from engine.telemetry.metrics import Metrics, model_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the buckets in seconds: those of gen_ai.client.operation.duration in OpenTelemetry's GenAI conventions."""

Labels = dict[str, str]
Sample = tuple[Labels, float]


class Counted(Protocol):
    """What can be told about: an Engine."""

    @property
    def metrics(self) -> Metrics: ...
    @property
    def resources(self) -> Resources: ...


def text(engine: Counted) -> str:
    """The whole exposition. Call it on the engine's event loop, where the counting is done."""
    lines = [*_requests(engine.metrics), *_attempts(engine.metrics), *_stages(engine.resources)]
    return "\n".join(lines) + "\n"


def _requests(metrics: Metrics) -> Iterator[str]:
    groups = [
        ({**_target(target), "priority": priority}, tally) for (target, priority), tally in metrics.requests.items()
    ]
    yield from _counter(
        "engine_requests_total",
        "Requests by the target that served them last, and by outcome: ok, or a word of the failure vocabulary.",
        (({**labels, "outcome": word}, count) for labels, tally in groups for word, count in tally.outcomes.items()),
    )
    yield from _counter(
        "engine_requests_cached_total",
        "Requests answered from the cache (hit), or with an equal request under way (shared).",
        (({**labels, "how": how}, count) for labels, tally in groups for how, count in tally.cached.items()),
    )
    yield from _counter(
        "engine_requests_cost_unknown_total",
        "Requests that were tried and whose cost is not known.",
        ((labels, tally.cost_unknown) for labels, tally in groups),
    )
    yield from _histogram(
        "engine_request_duration_seconds",
        "From submission to the end of the answer, of requests that succeeded.",
        ((labels, tally.latency) for labels, tally in groups),
    )
    yield from _histogram(
        "engine_request_first_token_seconds",
        "Streaming: from submission to the first chunk.",
        ((labels, tally.first_token) for labels, tally in groups),
    )
    yield from _histogram(
        "engine_request_queue_seconds",
        "Waited in queues, over all attempts.",
        ((labels, tally.queue) for labels, tally in groups),
    )


def _attempts(metrics: Metrics) -> Iterator[str]:
    groups = [
        ({**_target(target), "key": key or "", "priority": priority}, tally)
        for (target, key, priority), tally in metrics.attempts.items()
    ]
    yield from _counter(
        "engine_attempts_total",
        "Attempts by role (first, retry, fallback, hedge, rescue) and outcome.",
        (
            ({**labels, "role": role, "outcome": outcome}, count)
            for labels, tally in groups
            for (role, outcome), count in tally.counts.items()
        ),
    )
    yield from _histogram(
        "engine_attempt_duration_seconds",
        "Of successful attempts.",
        ((labels, tally.latency) for labels, tally in groups),
    )
    yield from _histogram(
        "engine_attempt_first_token_seconds",
        "Streaming: from the attempt's start to its first chunk.",
        ((labels, tally.first_token) for labels, tally in groups),
    )
    yield from _counter(
        "engine_tokens_total",
        "Tokens of all attempts; each other type is a part of input or output.",
        _tokens((labels, tally.usage) for labels, tally in groups),
    )
    yield from _counter(
        "engine_tokens_lost_total",
        "Tokens of attempts that brought no answer.",
        _tokens((labels, tally.lost) for labels, tally in groups),
    )
    yield from _counter(
        "engine_cost_dollars_total",
        "Known cost of all attempts, in US dollars.",
        ((labels, tally.cost) for labels, tally in groups if tally.cost is not None),
    )
    yield from _counter(
        "engine_cost_estimated_dollars_total",
        "The part of the known cost that rests on estimates, in US dollars.",
        ((labels, tally.cost_estimated / PICO) for labels, tally in groups if tally.cost_estimated),
    )
    yield from _counter(
        "engine_attempts_cost_unknown_total",
        "Attempts that used something whose cost is not known.",
        ((labels, tally.cost_unknown) for labels, tally in groups),
    )


def _stages(resources: Resources) -> Iterator[str]:
    families: dict[tuple[str, str], list[Sample]] = {}
    for reading in readings(resources):
        target = reading.labels.get("target")
        labels = {**_target(target), **reading.labels} if target else reading.labels
        name = _metric(reading)
        families.setdefault((name, "counter" if reading.grows else "gauge"), []).append((labels, reading.value))
    for (name, kind), samples in families.items():
        yield from _family(name, kind, "Live state of a stage; see docs/telemetry.md.", samples)


def _metric(reading: Reading) -> str:
    """Its name, with the stage's where that does not stand in it already."""
    name = reading.name if reading.stage.rstrip("s") in reading.name else f"{reading.stage}_{reading.name}"
    return f"engine_{name.removesuffix('_total')}" + ("_total" if reading.grows else "")


def _tokens(groups: Iterable[tuple[Labels, Usage]]) -> Iterator[Sample]:
    for labels, usage in groups:
        yield {**labels, "type": "input"}, usage.input_tokens
        yield {**labels, "type": "output"}, usage.output_tokens
        for kind, count in usage.kinds().items():
            yield {**labels, "type": kind}, count


def _target(name: str | None) -> Labels:
    return {"target": name or "", "model": model_of(name) if name else ""}


def _counter(name: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    return _family(name, "counter", about, samples)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield from _head(name, kind, about)
    for labels, value in samples:
        yield _line(name, labels, value)


def _histogram(name: str, about: str, series: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    yield from _head(name, "histogram", about)
    for labels, histogram in series:
        if not histogram.count:
            continue
        for bound, count in zip(BOUNDS_S, histogram.cumulative(BOUNDS_S), strict=True):
            yield _line(f"{name}_bucket", {**labels, "le": repr(bound)}, count)
        yield _line(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
        yield _line(f"{name}_sum", labels, histogram.sum)
        yield _line(f"{name}_count", labels, histogram.count)


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    said = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items() if text)
    return f"{name}{{{said}}} {value!r}" if said else f"{name} {value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
