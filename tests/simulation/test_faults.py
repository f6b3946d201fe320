from __future__ import annotations

from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from engine.schemas.simulated import FaultSpec
from engine.simulation.faults import Schedule
from tests.simulation.steps import Desk


def active(fault: dict[str, Any], times_s: list[float]) -> list[float]:
    """The times at which the fault hits a call."""
    schedule = Schedule([FaultSpec(**fault)])
    return [time for time in times_s if schedule.conditions(time, "sim_1", False, Random(0)).fault is not None]


def test_a_fault_lasts_from_its_beginning_until_just_before_its_end() -> None:
    assert active({"kind": "server", "from_s": 10, "to_s": 20}, [0, 9.9, 10, 19.9, 20, 30]) == [10, 19.9]


def test_a_fault_without_an_end_lasts_for_ever() -> None:
    assert active({"kind": "server", "from_s": 10}, [9, 10, 1e6]) == [10, 1e6]


def test_a_periodic_fault_comes_again_and_ends_for_good() -> None:
    flapping = {"kind": "server", "from_s": 5, "to_s": 45, "every_s": 20, "for_s": 8}
    assert active(flapping, [0, 5, 12.9, 13, 24, 25, 32, 44, 45, 65]) == [5, 12.9, 25, 32]


def test_a_share_of_the_calls_is_hit() -> None:
    desk = Desk(faults=[{"kind": "server", "rate": 0.25}])
    hit = sum(desk.refusal() == "server" for _ in range(4000))
    assert 0.22 < hit / 4000 < 0.28


def test_only_the_calls_with_the_faults_key_are_hit() -> None:
    desk = Desk(keys=2, faults=[{"kind": "auth", "key": "sim_2", "from_s": 60}])
    assert [desk.refusal(30, "sim_2"), desk.refusal(60, "sim_1"), desk.refusal(60, "sim_2")] == [None, None, "auth"]


def test_without_keys_every_call_counts_as_the_first_keys() -> None:
    assert Desk(faults=[{"kind": "auth", "key": "sim_1"}]).refusal() == "auth"


def test_of_two_faults_the_first_one_counts() -> None:
    desk = Desk(faults=[{"kind": "server", "to_s": 5}, {"kind": "throttled"}])
    assert [desk.refusal(0), desk.refusal(5)] == ["server", "throttled"]


def test_delays_add_up() -> None:
    slow = {"kind": "slow", "delay_s": 2}
    assert Desk(latency_s=1, faults=[slow, slow]).ask().first_s == 5


def test_a_stall_is_a_pause_in_its_place() -> None:
    plan = Desk(token_s=0.5, faults=[{"kind": "stall", "delay_s": 30, "at": 0.25}]).ask()
    assert [plan.pause_s(index) for index in range(9)] == [0, 0.5, 30.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0]
    assert plan.whole_s == 33.5


def test_a_hint_without_a_number_says_when_the_fault_is_over() -> None:
    desk = Desk(faults=[{"kind": "quota_exhausted", "to_s": 300, "hint": "retry_after"}])
    failure = desk.ask(100).failure
    assert failure is not None
    assert failure.wait_s == 200


def test_a_hint_of_a_periodic_fault_says_when_it_pauses() -> None:
    desk = Desk(faults=[{"kind": "throttled", "every_s": 60, "for_s": 10, "hint": "retry_after"}])
    failure = desk.ask(123).failure
    assert failure is not None
    assert failure.wait_s == 7


def test_a_fault_that_never_ends_has_no_hint_to_give() -> None:
    failure = Desk(faults=[{"kind": "throttled", "hint": "retry_after"}]).ask().failure
    assert failure is not None
    assert failure.wait_s is None


def test_the_short_form_of_a_fault_comes_after_those_of_the_schedule() -> None:
    desk = Desk(failure_rate=1, failure_kind="overloaded", retry_after_s=1.5, faults=[{"kind": "server", "to_s": 5}])
    failure = desk.ask(5).failure
    assert desk.refusal(0) == "server"
    assert failure is not None
    assert (failure.kind, failure.wait_s) == ("overloaded", 1.5)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": "stall"}, "stall needs delay_s"),
        (
            {"kind": "stall", "delay_s": 1, "hint": "gemini"},
            "stall takes no hint; in addition to time and callers: at, delay_s",
        ),
        ({"kind": "silent", "delay_s": 1}, "silent takes no delay_s; in addition to time and callers: nothing"),
        ({"kind": "server", "status": 503}, "status 503 does not mean server; one of: 500, 502, 520"),
        ({"kind": "server", "from_s": 5, "to_s": 5}, "to_s must be later than from_s, 5"),
        ({"kind": "server", "every_s": 5}, "every_s and for_s go together"),
        ({"kind": "server", "every_s": 5, "for_s": 6}, "for_s must not be longer than every_s, 5"),
        ({"kind": "throttled", "retry_after_s": 6}, "retry_after_s needs a hint"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FaultSpec(**fault)


def test_a_fault_survives_being_written_down_and_read_again() -> None:
    fault = FaultSpec(kind="stall", delay_s=3)
    assert FaultSpec(**fault.model_dump(mode="json")) == fault
