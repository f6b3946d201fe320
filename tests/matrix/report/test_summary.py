"""Counts and differences of runs."""

from __future__ import annotations

from engine.matrix.report.record import Cell, Row
from engine.matrix.report.summary import changes, counts


def rows(**statuses: str) -> dict[str, Row]:
    return {
        name: Row(name, "installed", cells={"cpu": Cell(status)})  # type: ignore[arg-type]
        for name, status in statuses.items()
    }


def test_rows_that_can_not_be_built_do_not_count_as_tried() -> None:
    [count] = counts(rows(bert="ok", vit="failed", deta="unavailable"), ["cpu"])
    assert (count.ok, count.tried, count.share) == (1, 2, "50.0 %")


def test_the_share_is_never_rounded_up_to_all() -> None:
    found = rows(**{f"model{number}": "ok" for number in range(2999)}, last="drift")
    assert counts(found, ["cpu"])[0].share == "99.9 %"


def test_hardware_that_is_not_here_has_no_share() -> None:
    assert counts(rows(bert="no device"), ["cpu"])[0].share == "–"


def test_same_tokens_are_counted_among_those_that_were_compared() -> None:
    found = {
        name: Row(name, "installed", cells={"cpu": Cell("ok", tokens_equal=equal)})
        for name, equal in (("gpt2", True), ("t5", False), ("vit", None))
    }
    [count] = counts(found, ["cpu"])
    assert (count.same_tokens, count.generative) == (1, 2)


def test_a_change_says_what_it_was_and_is() -> None:
    [change] = changes(rows(bert="failed", vit="ok"), rows(bert="ok", vit="ok"), ["cpu"])
    assert (change.name, change.before, change.now, change.better) == ("bert", "failed", "ok", True)


def test_a_row_that_only_one_run_has_is_no_change() -> None:
    assert changes(rows(bert="ok"), rows(vit="ok"), ["cpu"]) == []
