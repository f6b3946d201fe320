"""engine/telemetry/gauges.py."""

from __future__ import annotations

from engine.core.resources import Resources
from engine.telemetry.gauges import readings, stages


class Circuit:
    def gauges(self) -> dict[str, float]:
        return {"open": 1, "breaker_trips": 3}


class Ring:
    def gauges(self) -> dict[str, float]:
        return {"in_flight/K_1": 2, "parked/K_1": 0, "in_flight/K_2": 1}


def shared() -> Resources:
    resources = Resources()
    resources.get(("breaker", "http://host/v1", "m"), Circuit)
    resources.get(("keys", "p/m"), Ring)
    resources.get(("rate_limit", "p/m", None), Circuit)
    resources.get(("queue", "p/m"), object)
    return resources


def test_whatever_has_gauges_is_read_with_its_labels() -> None:
    found = {(reading.stage, *reading.labels.values(), reading.name): reading.value for reading in readings(shared())}
    assert found[("breaker", "http://host/v1", "m", "breaker_trips")] == 3
    assert found[("keys", "p/m", "K_1", "in_flight")] == 2
    assert found[("rate_limit", "p/m", "open")] == 1
    assert not any(place[0] == "queue" for place in found)


def test_stages_have_a_row_for_each_thing_and_key() -> None:
    assert stages(shared())["keys"] == [
        {"target": "p/m", "key": "K_1", "in_flight": 2, "parked": 0},
        {"target": "p/m", "key": "K_2", "in_flight": 1},
    ]
