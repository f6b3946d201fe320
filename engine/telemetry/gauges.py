"""The live state of the stages: opened circuits, limits, levels, calls in flight, waiting requests.

It is not part of any result. Objects with such state are in the engine's Resources and may have a method `gauges`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.core.resources import Resources

LABELS = {
    "queue": ("target",),
    "keys": ("target",),
    "endpoints": ("target",),
    "rate_limit": ("target", "key"),
    "concurrency": ("target",),
    "breaker": ("endpoint", "model"),
    "batch": ("target",),
    "budget": ("target",),
    "hedge": ("target",),
    "cache": (),
}
"""The parts after the kind in the keys of our stages' resources; in others it is the target."""


GROWING = frozenset({"cuts", "evicted", "refused", "rejected", "rejections", "total", "trips"})
"""The last words of the names of counters."""


@runtime_checkable
class HasGauges(Protocol):
    """Shared state of a stage that can be read at any time, on the engine's event loop.

    A name is in snake_case, with its unit where it has one (`_s`, `_bytes`). One whose last word is in GROWING only
    grows, such as the number of times that a circuit opened; others go up and down. `name/key` is the reading of one
    key, by the key's name.
    """

    def gauges(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """One number at one moment."""

    stage: str
    """The kind of resource: queue, breaker, …"""
    labels: dict[str, str]
    """The labels; None in a resource's key is left out."""
    name: str
    value: float

    @property
    def grows(self) -> bool:
        """Returns True for a counter, False for a gauge."""
        return self.name.rpartition("_")[2] in GROWING


def readings(resources: Resources) -> list[Reading]:
    """Returns all readings of all resources that have `gauges`."""
    readings = []
    for stage in dict.fromkeys([*LABELS, *resources.kinds()]):
        for place, thing in resources.items(stage).items():
            if not isinstance(thing, HasGauges):
                continue
            names = LABELS.get(stage, ("target",))
            labels = {name: str(part) for name, part in zip(names, place[1:], strict=False) if part is not None}
            for gauge, value in thing.gauges().items():
                name, _, key = gauge.partition("/")
                readings.append(Reading(stage, {**labels, "key": key} if key else labels, name, value))
    return readings


def stages(resources: Resources) -> dict[str, list[dict[str, str | float]]]:
    """Returns the readings as plain data: by stage, a row for each object, with its labels (texts) and its numbers."""
    found: dict[str, dict[tuple[str, ...], dict[str, str | float]]] = {}
    for reading in readings(resources):
        rows = found.setdefault(reading.stage, {})
        row = rows.setdefault(tuple(reading.labels.values()), {**reading.labels})
        row[reading.name] = reading.value
    return {stage: list(rows.values()) for stage, rows in found.items()}
