"""`output.table`: the table of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main

pytestmark = pytest.mark.slow

KINDS = ["csv", "jsonl", "parquet", "arrow"]
PROMPT = ["provider=simulated", "provider.price={input: 1, output: 2}", "prompt.template=Rate: {{ review }}"]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    pyarrow = pytest.importorskip("pyarrow")
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
    else:
        table = pyarrow.ipc.open_file(path).read_all()
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_its_columns_its_answer_and_what_it_took(tmp_path: Path, kind: str) -> None:
    rows = [{"review": 'Great, "really"\n😀', "stars": 5}, {"review": "Bad", "stars": 1, "tags": ["a"]}, {"stars": 3}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    words = ["workload=jsonl", f"workload.path={tmp_path / 'in.jsonl'}", f"output.dir={tmp_path / 'run'}"]
    assert main([*PROMPT, *words, f"output.table={kind}"]) == 3
    first, second, third = read(tmp_path / "run" / f"table.{kind}")
    assert list(first) == ["id", "review", "stars", "tags", "answer", "error", "target", "input_tokens",
                           "output_tokens", "cost_usd", "latency_s"]  # fmt: skip
    assert (first["id"], first["review"]) == ("row-1", 'Great, "really"\n😀')
    assert first["answer"].startswith("[simulated]")
    assert int(first["stars"]) == 5
    assert int(first["output_tokens"]) == 8
    assert float(first["cost_usd"]) > 0
    assert first["target"] == "simulated/simulated"
    assert json.dumps(second["tags"]) in ('"[\\"a\\"]"', '["a"]')
    assert third["answer"] is None
    assert "'review' is undefined" in third["error"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_a_table_has_the_cells_as_they_are(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.csv").write_text("text,label,answer\nhello,x,old\nbye,,new\n")
    words = ["workload=csv", f"workload.path={tmp_path / 'in.csv'}", f"output.dir={tmp_path / 'run'}"]
    assert main(["provider=simulated", *words, f"output.table={kind}"]) == 0
    first, second = read(tmp_path / "run" / f"table.{kind}")
    assert (first["text"], first["label"], first["input_answer"]) == ("hello", "x", "old")
    assert second["input_answer"] == "new"
    assert first["answer"].startswith("[simulated]")


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_a_column_of_numbers(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    words = ["workload=txt", f"workload.path={tmp_path / 'in.txt'}", f"output.dir={tmp_path / 'run'}"]
    task = ["workload.task=embedding", f"output.table={kind}"]
    assert main(["provider=simulated", *words, *task]) == 0
    first = read(tmp_path / "run" / f"table.{kind}")[0]
    vector = json.loads(first["embedding"]) if kind == "csv" else first["embedding"]
    assert len(vector) > 1
    assert all(isinstance(number, float | int) for number in vector)
    assert "answer" not in first


def test_synthetic_rows_have_no_columns_of_their_own(tmp_path: Path) -> None:
    words = ["workload=synthetic", "workload.limit=3", f"output.dir={tmp_path / 'run'}", "output.table=jsonl"]
    assert main(["provider=simulated", *words]) == 0
    table = read(tmp_path / "run" / "table.jsonl")
    assert [row["id"] for row in table] == ["row-1", "row-2", "row-3"]
    assert "text" not in table[0]


def test_a_resumed_run_has_the_whole_table(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\nthree\n")
    words = ["workload=txt", f"workload.path={tmp_path / 'in.txt'}", f"output.dir={tmp_path / 'run'}"]
    assert main(["provider=simulated", *words]) == 0
    assert main(["runs", "resume", str(tmp_path / "run"), "output.table=csv"]) == 0
    assert [row["text"] for row in read(tmp_path / "run" / "table.csv")] == ["one", "two", "three"]
