"""A model's process ends within its limits, and takes nothing else with it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from engine.matrix.measure.isolate import Ended, Limits, Target, run_each, within
from tests.matrix import targets

pytestmark = pytest.mark.slow
GENEROUS = Limits(time_s=60, memory_bytes=1 << 30)


def ended(jobs: Sequence[str], target: Target, limits: Limits = GENEROUS, parallel: int = 1) -> dict[str, Ended]:
    return {one.job: one for one in run_each(jobs, target, lambda job: (job,), parallel=parallel, limits=limits)}


def test_what_a_process_says_is_heard_until_its_end() -> None:
    found = ended(["one", "two"], targets.answer)
    assert found["one"].said == [b"one"]
    assert found["two"].said == [b"two"]
    assert found["one"].ended_by is None


def test_a_process_that_runs_too_long_is_killed_and_what_it_said_is_kept() -> None:
    started = time.monotonic()
    one = ended(["slow"], targets.run_forever, Limits(time_s=1.0, memory_bytes=1 << 30))["slow"]
    assert one.ended_by == "timeout: longer than the time limit of 1 s"
    assert one.said == [b"slow began"]
    assert time.monotonic() - started < 30


def test_a_process_that_takes_too_much_memory_is_killed() -> None:
    one = ended(["greedy"], targets.eat_memory, Limits(time_s=60, memory_bytes=200 << 20))["greedy"]
    assert one.ended_by is not None
    assert one.ended_by.startswith("memory: ")
    assert "over the memory limit of 0.195" in one.ended_by
    assert one.said == [b"greedy began"]


def test_a_process_that_dies_says_by_which_signal() -> None:
    one = ended(["broken"], targets.die)["broken"]
    assert one.ended_by == "crashed: the process ended with signal 11 (SIGSEGV)"
    assert one.said == [b"broken began"]


def test_one_bad_process_leaves_the_others_alone() -> None:
    limits = Limits(time_s=2.0, memory_bytes=1 << 30)
    found = ended(["hangs", "good", "dies"], targets.chosen, limits, parallel=2)
    assert found["good"].ended_by is None
    assert found["hangs"].ended_by is not None
    assert found["dies"].ended_by is not None


def test_a_step_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(TimeoutError, match="took longer than 0 s"), within(0.05):
        while True:
            time.sleep(0.01)


def test_a_step_within_its_time_is_left_alone() -> None:
    with within(30):
        found = 1 + 1
    assert found == 2
