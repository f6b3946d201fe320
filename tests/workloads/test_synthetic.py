"""engine/workloads/synthetic.py: when made-up rows come, how long they are, how urgent, and that a seed fixes them."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine.core.errors import ConfigError, SetupError
from engine.schemas.workload import WorkloadSpec
from engine.workloads.open import Row, Source, open_source
from engine.workloads.rows import Form, Record, row_of


def source_of(seed: int = 0, tasks: tuple[str, ...] = ("chat",), **knobs: Any) -> Source:
    plain = {"kind": "synthetic", **({"duration_s": 10.0} if "limit" not in knobs else {}), **knobs}
    return open_source(TypeAdapter(WorkloadSpec).validate_python(plain), tasks, seed)


def words_of(row: Row) -> int:
    assert row.request is not None
    return len(row.request.body["messages"][0]["content"].split())


def times_of(source: Source) -> list[float]:
    times = [row.at_s for row in source]
    assert all(time is not None for time in times)
    return times  # type: ignore[return-value]


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = times_of(source_of(arrivals="constant", rate_per_s=4))
    assert times == [index / 4 for index in range(40)]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = times_of(source_of(rate_per_s=100, duration_s=200))
    assert len(times) == pytest.approx(20_000, rel=0.03)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.03)
    assert times == sorted(times)
    assert times[-1] < 200


def test_a_trace_is_a_list_of_times() -> None:
    assert times_of(source_of(arrivals="trace", times=[0.0, 0.5, 0.5, 3])) == [0.0, 0.5, 0.5, 3.0]


def test_a_trace_may_be_a_file_with_a_number_a_line(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("0\n1.5\n\n2e0\n30\n")
    source = source_of(arrivals="trace", times=str(path))
    assert times_of(source) == [0.0, 1.5, 2.0]  # 30 s is after duration_s
    assert source.count() == 3
    assert source.fingerprint() is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [("1\n0.5\n", r"times\.txt:2: 0\.5 comes after 1"), ("0\nsoon\n", r"times\.txt:2: no number"),
     ("nan\n", "no number")],
)  # fmt: skip
def test_a_wrong_trace_says_where(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text(content)
    with pytest.raises(SetupError, match=message):
        list(source_of(arrivals="trace", times=str(path)))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"arrivals": "trace"}, r"workload\.times: arrivals=trace needs a list of seconds or a file"),
        ({"arrivals": "trace", "times": [2, 1]}, r"workload\.times: expected seconds from the start, in order"),
        ({"arrivals": "trace", "times": "gone.txt"}, r"workload\.times: gone\.txt does not exist"),
        ({"duration_s": None}, r"workload\.duration_s: these rows would never end"),
        ({"priorities": {"normal": 0}}, r"workload\.priorities: all weights are 0"),
        ({"prompt_tokens": {"min": 9, "max": 3}}, r"workload\.prompt_tokens\.min: 9 is more than"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused_with_the_next_step(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source_of(**knobs)


def test_the_same_seed_makes_the_same_rows() -> None:
    knobs = {"prompt_tokens": {"distribution": "lognormal"}, "priorities": {"high": 1, "low": 1}}
    first, again, other = source_of(7, **knobs), source_of(7, **knobs), source_of(8, **knobs)
    assert list(first) == list(again) == list(first)
    assert list(first) != list(other)


def test_another_rate_leaves_the_prompts_as_they_were() -> None:
    lengths = {"prompt_tokens": {"distribution": "uniform", "max": 50}, "limit": 100}
    slow, fast = source_of(rate_per_s=1, **lengths), source_of(rate_per_s=50, **lengths)
    assert [words_of(row) for row in slow] == [words_of(row) for row in fast]


def test_priorities_come_in_their_shares() -> None:
    rows = source_of(limit=10_000, priorities={"high": 1, "normal": 6, "low": 3})
    count = Counter(row.request.priority for row in rows if row.request is not None)
    assert count["high"] == pytest.approx(1000, rel=0.1)
    assert count["low"] == pytest.approx(3000, rel=0.1)


def test_constant_prompts_have_exactly_that_many_words() -> None:
    assert {words_of(row) for row in source_of(limit=20, prompt_tokens={"median": 9})} == {9}


def test_uniform_lengths_reach_both_ends_and_nothing_beyond() -> None:
    rows = source_of(limit=2000, prompt_tokens={"distribution": "uniform", "min": 3, "max": 7})
    assert {words_of(row) for row in rows} == {3, 4, 5, 6, 7}


def test_lognormal_lengths_have_their_median_and_stay_within_their_bounds() -> None:
    spec = {"distribution": "lognormal", "median": 100, "sigma": 1.0, "min": 20, "max": 400}
    lengths = sorted(words_of(row) for row in source_of(limit=5000, prompt_tokens=spec))
    assert statistics.median(lengths) == pytest.approx(100, rel=0.06)
    assert (lengths[0], lengths[-1]) == (20, 400)


def test_every_prompt_is_its_own() -> None:
    prompts = [str(row.request) for row in source_of(limit=500, prompt_tokens={"median": 5})]
    assert len(set(prompts)) == 500


def test_the_answers_length_is_asked_for_of_tasks_that_generate_only() -> None:
    (chat,) = source_of(limit=1, max_tokens={"median": 33})
    (embedding,) = source_of(limit=1, tasks=("embedding",), max_tokens={"median": 33})
    assert chat.request is not None
    assert embedding.request is not None
    assert chat.request.body["max_tokens"] == 33
    assert set(embedding.request.body) == {"input"}


def test_parameters_and_deadlines_are_every_rows() -> None:
    (row,) = source_of(limit=1, deadline_s=5.0, parameters={"temperature": 0})
    assert row.request is not None
    assert row.request.deadline_s == 5.0
    assert row.request.body["temperature"] == 0


def test_the_letter_of_a_row_is_valid_input_that_asks_the_same() -> None:
    for row in source_of(limit=5, deadline_s=2.0, priorities={"high": 1}, max_tokens={"median": 4}):
        assert row_of(row.index, "dead.jsonl", Record(1, row.letter()), Form()).request == row.request


def test_open_loops_know_their_rows_and_closed_ones_only_with_a_limit() -> None:
    poisson = source_of(rate_per_s=20)
    assert poisson.count() == len(list(poisson))
    assert source_of(arrivals="closed").count() is None
    assert source_of(arrivals="closed", limit=30).count() == 30
