"""Finished rows are on disk, whatever happens to the process that wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.errors import OutputError
from engine.matrix.report import record
from engine.matrix.report.record import Cell, Row


def row(name: str, **cells: str) -> Row:
    return Row(name, "installed", cells={place: Cell(status) for place, status in cells.items()})  # type: ignore[arg-type]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    written = Row("bert", "mapped", model="BertForMaskedLM", inputs={"input_ids": [2, 12]}, processors=["tokenizer"],
                  cells={"cpu": Cell("ok", error=1e-7, batch_sizes=[1, 2])})  # fmt: skip
    record.append(path, written)
    assert record.read(path) == {"bert": written}


def test_the_latest_row_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    record.append(path, row("bert", cpu="failed"))
    record.append(path, row("bert", cpu="ok"))
    assert record.read(path)["bert"].cells["cpu"].status == "ok"


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    record.append(path, row("bert", cpu="ok"))
    with path.open("ab") as stream:
        stream.write(b'{"name":"vit","gro')
    assert list(record.read(path)) == ["bert"]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"nonsense\n")
    record.append(path, row("bert", cpu="ok"))
    with pytest.raises(OutputError, match="line 1"):
        record.read(path)


def test_a_row_is_known_when_each_hardware_has_an_answer() -> None:
    assert record.covers(row("bert", cpu="ok", openvino="failed"), ["cpu", "openvino"])
    assert not record.covers(row("bert", cpu="ok"), ["cpu", "openvino"])
