"""The files that the matrix leaves."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from engine.matrix.report import record, report
from engine.matrix.report.record import Cell, Row

ROWS = {
    "bert": Row("bert", "mapped", "bert", "dbmdz/bert-base-german-cased", "BertForMaskedLM", 121024, "small",
                {"input_ids": [2, 12]}, ["tokenizer"],
                cells={"cpu": Cell("ok", route="torch", load_s=0.05, run_s=0.002, peak_bytes=3 << 20, error=0.0),
                       "openvino": Cell("ok", route="trace", load_s=2.0, run_s=0.001, error=3e-7, tokens_equal=True)}),
    "odd": Row("odd", "installed", note="a | pipe and <b>a tag</b></script>",
               cells={"cpu": Cell("failed", reason="ValueError: a | b", fix="try again"),
                      "openvino": Cell("failed", reason="</script><b>")}),
    "deta": Row("deta", "named", cells={"cpu": Cell("unavailable", reason="left"),
                                        "openvino": Cell("unavailable", reason="left")}),
}  # fmt: skip
HARDWARE = ("cpu", "openvino")


def write(folder: Path, previous: Path | None = None) -> str:
    return report.write(folder, ROWS, HARDWARE, previous or folder / "none.jsonl", {"machine": "a test"})


def test_the_terminal_sees_the_share_of_each_hardware(tmp_path: Path) -> None:
    lines = write(tmp_path).splitlines()
    assert lines[0] == "cpu: 1 of 2 run (50.0 %): 1 ok, 1 failed, 1 unavailable"
    assert lines[1].endswith("the same tokens: 1 of 1")
    assert lines[2] == "no earlier run to compare with"


def test_json_holds_everything(tmp_path: Path) -> None:
    write(tmp_path)
    found = json.loads((tmp_path / "matrix.json").read_text())
    assert found["summary"][0]["share"] == "50.0 %"
    assert found["facts"] == {"machine": "a test"}
    assert [row["name"] for row in found["rows"]] == ["bert", "deta", "odd"]


def test_csv_has_a_line_for_each_row_and_hardware(tmp_path: Path) -> None:
    write(tmp_path)
    lines = list(csv.DictReader((tmp_path / "matrix.csv").open(encoding="utf-8")))
    assert len(lines) == 6
    assert lines[1]["name"] == "bert"
    assert lines[1]["hardware"] == "openvino"
    assert float(lines[1]["error"]) == 3e-7


def test_markdown_tells_each_failure_with_its_reason_and_next_step(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / "matrix.md").read_text()
    assert "| odd | cpu | failed | ValueError: a \\| b | try again |" in text
    assert "ok (trace, 3e-07)" in text


def test_every_row_of_a_markdown_table_has_the_columns_of_its_head(tmp_path: Path) -> None:
    write(tmp_path)
    for table in re.findall(r"(?:^\|.*\n)+", (tmp_path / "matrix.md").read_text(), re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_the_page_needs_nothing_else_and_no_text_of_a_row_ends_its_script(tmp_path: Path) -> None:
    write(tmp_path)
    page = (tmp_path / "matrix.html").read_text()
    assert page.count("</script>") == 1
    assert not re.search(r"(src|href)=", page)
    assert '"name":"odd"' in page


def test_the_difference_names_what_changed(tmp_path: Path) -> None:
    previous = tmp_path / "previous.jsonl"
    record.append(previous, Row("bert", "mapped", cells={"cpu": Cell("ok"), "openvino": Cell("drift")}))
    record.append(previous, Row("odd", "installed", cells={"cpu": Cell("ok")}))
    lines = write(tmp_path, previous)
    assert lines.endswith("since the last run: 1 now run, 1 changed otherwise")
    text = (tmp_path / "diff.md").read_text()
    assert "| bert | openvino | drift | **ok** |" in text
    assert "| odd | cpu | ok | failed |" in text


def test_without_an_earlier_run_the_difference_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    assert "no earlier run" in (tmp_path / "diff.md").read_text()
