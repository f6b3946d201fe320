"""engine/runs/pending_rows.py: what a resume still has to answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.core.errors import OutputError
from engine.runs.journal import Journal
from engine.runs.pending_rows import PendingRows
from engine.runs.results import digest_of
from engine.schemas.workload import JsonlWorkloadSpec
from engine.workloads.open import Source, open_source

LINES = [
    '{"prompt": "zero"}',
    '{"prompt": "one"',
    "not json",
    '  {"prompt": "three"}',
    '{"custom_id": "x", "raw": "[]"}',
]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "in.jsonl").write_text("\n".join(LINES))
    return open_source(JsonlWorkloadSpec(kind="jsonl", path=str(tmp_path / "in.jsonl")))


def recorded(source: Source, path: Path, *indices: int, changed: int | None = None) -> PendingRows:
    """What is left when rows with these indices have a record."""

    async def record() -> None:
        journal = Journal(path, threaded=False)
        for row in source:
            if row.index in indices:
                digest = digest_of(row.letter()) + (row.index == changed)
                journal.append(row.index, row.id, True, digest, b"{}", lambda failure: None)
        await journal.aclose()

    asyncio.run(record())
    return PendingRows(source, path)


@pytest.mark.parametrize("indices", [(), (0,), (1, 2), (0, 2, 4), (3, 4), (0, 1, 2, 3, 4)])
def test_what_is_left_are_the_rows_without_a_record_broken_ones_too(
    indices: tuple[int, ...], source: Source, tmp_path: Path
) -> None:
    rest = recorded(source, tmp_path / "journal.sqlite", *indices)
    left = [(row.index, row.letter(), digest) for row, digest in rest]
    assert left == [(row.index, row.letter(), digest_of(row.letter())) for row in source if row.index not in indices]
    assert (rest.rows, rest.passed) == (len(LINES), len(indices))
    rest.refuse_shorter()


@pytest.mark.parametrize("changed", range(len(LINES)))
def test_a_row_that_is_not_the_recorded_one_is_named(changed: int, source: Source, tmp_path: Path) -> None:
    rest = recorded(source, tmp_path / "journal.sqlite", 0, 1, 2, 3, 4, changed=changed)
    with pytest.raises(OutputError, match=rf"output\.resume: row {changed + 1} \(.*\) of .*in\.jsonl is not the one"):
        list(rest)


def test_a_workload_that_lost_recorded_rows_is_refused(source: Source, tmp_path: Path) -> None:
    rest = recorded(source, tmp_path / "journal.sqlite", 0, 4)
    (tmp_path / "in.jsonl").write_text("\n".join(LINES[:3]))
    list(rest)
    with pytest.raises(OutputError, match="has only 3 rows now, but row 5 is recorded"):
        rest.refuse_shorter()
