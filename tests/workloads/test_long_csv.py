"""A row of a CSV file that is too long fails alone: it is never cut, and the rows after it are read as they are."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workloads.test_sources import asked, source

LIMIT = 1024 * 1024
CELL = st.text(st.sampled_from('ab,"\n é'), max_size=12)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.workloads.csv.LINE_LIMIT_BYTES", LIMIT)


def written(folder: Path, rows: list[list[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerows(rows)
    path = folder / "in.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("columns", [["prompt"], ["prompt", "label"]])
@pytest.mark.parametrize(
    "cell",
    [
        "a" * (LIMIT + 1),
        "a" * (3 * LIMIT),
        '"' * LIMIT,
        "a,b" * LIMIT,
        "one\n" + "a" * (LIMIT + 1) + "\ntwo",
        "a" * (LIMIT + 1) + "\nprompt of no row",
        "line of a cell\n" * (LIMIT // 10),
        'say "it"\n' * (LIMIT // 8),
    ],
    ids=["plain", "3 MiB", "quotes", "delimiters", "within", "first line", "many lines", "many quotes"],
)
def test_a_row_that_is_too_long_fails_alone(tmp_path: Path, columns: list[str], cell: str) -> None:
    more = [""] * (len(columns) - 1)
    path = written(tmp_path, [columns, ["before", *more], [cell, *more], ["after", *more], ["last", *more]])
    rows = list(source("csv", path))
    assert asked(source("csv", path)) == ["before", None, "after", "last"]
    assert rows[1].error is not None
    assert "bytes in one row, at most 1 MiB; split the row" in rows[1].error.message
    assert len(rows[1].letter()) < 4096
    assert json.loads(rows[1].letter())


def test_a_cell_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    cell = "é" * (LIMIT // 2 - 8)
    assert asked(source("csv", written(tmp_path, [["prompt"], [cell], ["b"]]))) == [cell, "b"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=CELL, inside=st.lists(CELL, min_size=1, max_size=3), after=CELL, more=CELL)
def test_wherever_quotes_and_line_ends_are_the_next_row_is_found(
    tmp_path: Path, before: str, inside: list[str], after: str, more: str
) -> None:
    cell = ("x" * (LIMIT // len(inside))).join(["", *inside, "y" * 16])
    path = written(tmp_path, [["prompt", "label"], [f"b{before}", more], [cell, more], [f"a{after}", more]])
    assert asked(source("csv", path)) == [f"b{before}", None, f"a{after}"]


def test_a_header_that_is_too_long_is_refused(tmp_path: Path) -> None:
    from engine.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"has no header: .* bytes in one row"):
        source("csv", written(tmp_path, [["p" * (LIMIT + 1)], ["a"]]))
