"""The counts of an engine as metric families of `prometheus_client`, the library that writes their text.

The number of series is bounded by the run spec: targets, their keys, three priorities, and the words of the closed
vocabularies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric, Sample
from prometheus_client.registry import Collector

from engine.core.prices import PICO
from engine.core.resources import Resources
from engine.core.usage import Usage
from engine.telemetry.counted import BOUNDS_S, Counted
from engine.telemetry.gauges import Reading, readings
from engine.telemetry.histogram import Histogram
from engine.telemetry.metrics import Metrics, model_of

Labels = dict[str, str]
Value = tuple[Labels, float]


class EngineCollector(Collector):
    """Reads an engine's counts each time that it is collected; keeps none of its own."""

    def __init__(self, engine: Counted) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        yield from _requests(self._engine.metrics)
        yield from _attempts(self._engine.metrics)
        yield from _stages(self._engine.resources)


def render(engine: Counted) -> str:
    """Renders the whole exposition, in a registry of its own: the library's global one belongs to the program."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(engine))
    return generate_latest(registry).decode()


def _requests(metrics: Metrics) -> Iterator[Metric]:
    groups = [
        ({**_target(target), "priority": priority}, tally) for (target, priority), tally in metrics.requests.items()
    ]
    yield _counter(
        "engine_requests_total",
        "Requests by the target that served them last, and by outcome: ok, or a word of the failure vocabulary.",
        (({**labels, "outcome": word}, count) for labels, tally in groups for word, count in tally.outcomes.items()),
    )
    yield _counter(
        "engine_requests_cached_total",
        "Requests answered from the cache (hit), or with an equal request in flight (shared).",
        (({**labels, "how": how}, count) for labels, tally in groups for how, count in tally.cached.items()),
    )
    yield _counter(
        "engine_requests_cost_unknown_total",
        "Requests that were tried and whose cost is not known.",
        ((labels, tally.cost_unknown) for labels, tally in groups),
    )
    yield _histogram(
        "engine_request_duration_seconds",
        "From submission to the end of the answer, of requests that succeeded.",
        ((labels, tally.latency) for labels, tally in groups),
    )
    yield _histogram(
        "engine_request_first_token_seconds",
        "Streaming: from submission to the first chunk.",
        ((labels, tally.first_token) for labels, tally in groups),
    )
    yield _histogram(
        "engine_request_queue_seconds",
        "Waited in queues, over all attempts.",
        ((labels, tally.queue) for labels, tally in groups),
    )


def _attempts(metrics: Metrics) -> Iterator[Metric]:
    groups = [
        ({**_target(target), "key": key or "", "priority": priority}, tally)
        for (target, key, priority), tally in metrics.attempts.items()
    ]
    yield _counter(
        "engine_attempts_total",
        "Attempts by role (first, retry, fallback, hedge, rescue) and outcome.",
        (
            ({**labels, "role": role, "outcome": outcome}, count)
            for labels, tally in groups
            for (role, outcome), count in tally.counts.items()
        ),
    )
    yield _histogram(
        "engine_attempt_duration_seconds",
        "Of successful attempts.",
        ((labels, tally.latency) for labels, tally in groups),
    )
    yield _histogram(
        "engine_attempt_first_token_seconds",
        "Streaming: from the attempt's start to its first chunk.",
        ((labels, tally.first_token) for labels, tally in groups),
    )
    yield _counter(
        "engine_tokens_total",
        "Tokens of all attempts; each other type is a part of input or output.",
        _tokens((labels, tally.usage) for labels, tally in groups),
    )
    yield _counter(
        "engine_tokens_lost_total",
        "Tokens of attempts that brought no answer.",
        _tokens((labels, tally.lost) for labels, tally in groups),
    )
    yield _counter(
        "engine_cost_dollars_total",
        "Known cost of all attempts, in US dollars.",
        ((labels, tally.cost) for labels, tally in groups if tally.cost is not None),
    )
    yield _counter(
        "engine_cost_estimated_dollars_total",
        "The part of the known cost that rests on estimates, in US dollars.",
        ((labels, tally.cost_estimated / PICO) for labels, tally in groups if tally.cost_estimated),
    )
    yield _counter(
        "engine_attempts_cost_unknown_total",
        "Attempts that used something whose cost is not known.",
        ((labels, tally.cost_unknown) for labels, tally in groups),
    )


def _stages(resources: Resources) -> Iterator[Metric]:
    families: dict[tuple[str, str], list[Value]] = {}
    for reading in readings(resources):
        target = reading.labels.get("target")
        labels = {**_target(target), **reading.labels} if target else reading.labels
        name = _metric(reading)
        families.setdefault((name, "counter" if reading.grows else "gauge"), []).append((labels, reading.value))
    for (name, kind), samples in families.items():
        yield _family(name, kind, "Live state of a stage; see docs/telemetry.md.", samples)


def _metric(reading: Reading) -> str:
    """Returns its name, with the stage's where it does not name the stage already."""
    name = reading.name if reading.stage.rstrip("s") in reading.name else f"{reading.stage}_{reading.name}"
    return f"engine_{name.removesuffix('_total')}" + ("_total" if reading.grows else "")


def _tokens(groups: Iterable[tuple[Labels, Usage]]) -> Iterator[Value]:
    for labels, usage in groups:
        yield {**labels, "type": "input"}, usage.input_tokens
        yield {**labels, "type": "output"}, usage.output_tokens
        for kind, count in usage.kinds().items():
            yield {**labels, "type": kind}, count


def _target(name: str | None) -> Labels:
    return {"target": name or "", "model": model_of(name) if name else ""}


def _counter(name: str, about: str, values: Iterable[Value]) -> Metric:
    return _family(name, "counter", about, values)


def _family(name: str, kind: str, about: str, values: Iterable[Value]) -> Metric:
    family = Metric(name.removesuffix("_total"), about, kind)  # the library puts a counter's suffix back
    family.samples += [_sample(name, labels, value) for labels, value in values]
    return family


def _histogram(name: str, about: str, series: Iterable[tuple[Labels, Histogram]]) -> Metric:
    family = Metric(name, about, "histogram")
    for labels, histogram in series:
        if not histogram.count:
            continue
        for bound, count in zip(BOUNDS_S, histogram.cumulative(BOUNDS_S), strict=True):
            family.samples.append(_sample(f"{name}_bucket", {**labels, "le": repr(bound)}, count))
        family.samples.append(_sample(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count))
        family.samples.append(_sample(f"{name}_sum", labels, histogram.sum))
        family.samples.append(_sample(f"{name}_count", labels, histogram.count))
    return family


def _sample(name: str, labels: Labels, value: float) -> Sample:
    return Sample(name, {label: text for label, text in labels.items() if text}, value)
