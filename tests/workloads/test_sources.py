"""The sources, on real files and pipes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import engine
from engine.core.errors import ConfigError, SetupError
from engine.schemas.workload import WorkloadSpec
from engine.workloads.lines import LongLine, read_lines
from engine.workloads.open import Row, Source, check_rows, open_source


def source(kind: str, path: Path | None = None, tasks: tuple[str, ...] = (), **options: Any) -> Source:
    plain = {"kind": kind, **({"path": str(path)} if path else {}), **options}
    return open_source(TypeAdapter(WorkloadSpec).validate_python(plain), tasks)


def asked(rows: Source) -> list[str | None]:
    return [_text(row) for row in rows]


def _text(row: Row) -> str | None:
    if row.request is None:
        return None
    return str(row.request.body.get("input") or row.request.body["messages"][0]["content"])


def test_blank_lines_crlf_bom_and_a_missing_last_end(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}\n\n{"prompt": "c"}')
    rows = source("jsonl", path)
    assert asked(rows) == ["a", "b", "c"]
    assert rows.count() == 3
    assert [row.index for row in rows] == [0, 1, 2]


def test_errors_name_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n{oops\n')
    error = list(source("jsonl", path))[1].error
    assert error is not None
    assert error.message.startswith(f"{path}:3: not valid JSON")


def test_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n{"prompt": "b"}\n'))
    assert asked(source("jsonl", path)) == ["a", "b"]


def test_a_cut_gzip_file_says_how_far_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000).hex().encode())[:5000])
    with pytest.raises(SetupError, match=r"workload\.path: .* can't be read after row 0: .*; repair the file"):
        list(source("jsonl", path))


def test_the_limit_bounds_rows_and_count(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\nb\nc\n")
    rows = source("txt", path, limit=2)
    assert asked(rows) == ["a", "b"]
    assert rows.count() == 2


def test_a_line_above_the_limit_is_one_wrong_row(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"short\n" + b"x" * 5000 + b"\nnext\n")
    with path.open("rb") as stream:
        lines = [line for _, line in read_lines(stream, limit_bytes=100)]
    assert lines[0] == b"short"
    assert isinstance(lines[1], LongLine)
    assert lines[1].size_bytes == 5001
    assert lines[2] == b"next"


def test_text_lines_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("grüß\r\n\nzwei\n\xff".encode("latin-1"))
    rows = list(source("txt", path))
    assert [row.error is None for row in rows] == [False, True, False]
    path.write_text("grüß\nzwei")
    assert asked(source("txt", path)) == ["grüß", "zwei"]
    assert asked(source("txt", path, ("embedding",))) == ["grüß", "zwei"]


def test_csv_cells_become_prompt_body_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,prompt,max_tokens,priority,label\nq1,"one, ""two""\nthree",5,high,x\nq2,four,,,\n')
    first, second = source("csv", path)
    assert first.request is not None
    assert first.request.body == {"max_tokens": 5, "messages": [{"role": "user", "content": 'one, "two"\nthree'}]}
    assert (first.id, first.request.priority, first.request.metadata) == ("q1", "high", {"label": "x"})
    assert second.request is not None
    assert second.request.body == {"messages": [{"role": "user", "content": "four"}]}


def test_a_ragged_csv_row_fails_alone_and_its_letter_keeps_its_text(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('prompt,label\na,1\n"b, c\nd",2,3\n"e"x,4\nf,5\n')
    rows = list(source("csv", path))
    assert [row.error is None for row in rows] == [True, False, False, True]
    assert rows[1].error is not None
    assert "in.csv:4: 3 cells, but the header has 2" in rows[1].error.message
    assert rows[1].raw == '"b, c\nd",2,3'
    assert rows[2].raw == '"e"x,4'


def test_a_named_column_and_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("frage;n\nwas?;1\n")
    assert asked(source("csv", path, delimiter=";", column="frage")) == ["was?"]
    with pytest.raises(ConfigError, match=r"workload\.column: .* has no column 'frge'; did you mean frage\?"):
        source("csv", path, delimiter=";", column="frge")
    with pytest.raises(ConfigError, match=r"its columns: frage, n\); name the one"):
        source("csv", path, delimiter=";")


def test_a_csv_file_without_a_row_has_none(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("prompt\n")
    assert asked(source("csv", path)) == []
    path.write_text("")
    with pytest.raises(ConfigError, match="has no header"):
        source("csv", path)


def test_parquet_rows_with_messages_and_nulls(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    table = pyarrow.table({"id": ["a", None], "prompt": ["one", None], "max_tokens": [5, None], "score": [0.5, None]})
    pyarrow.parquet.write_table(table, path)
    rows = source("parquet", path)
    first, second = rows
    assert rows.count() == 2
    assert first.request is not None
    assert first.request.body == {"max_tokens": 5, "messages": [{"role": "user", "content": "one"}]}
    assert first.request.metadata == {"score": 0.5}
    assert second.error is not None
    turns = [[{"role": "user", "content": "hello"}]]
    pyarrow.parquet.write_table(pyarrow.table({"messages": turns}), path)
    assert asked(source("parquet", path)) == ["hello"]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.parquet"
    path.write_text("no")
    with pytest.raises(ConfigError, match=r"workload\.path: .* is not a Parquet file"):
        source("parquet", path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_a_missing_file_offers_its_neighbours(kind: str, tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"workload\.path: .* does not exist; did you mean questions\.jsonl\?"):
        source(kind, tmp_path / "question.jsonl")


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"is a folder; name one file in it \(it has a\.jsonl\)"):
        source("jsonl", tmp_path)


def test_checking_lists_the_first_invalid_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("[]\n" * 5)
    with pytest.raises(ConfigError, match=r"in\.jsonl:1: .*\n.*:2: .*\n.*:3: .*\n… and 2 more"):
        check_rows(source("jsonl", path))


@pytest.mark.parametrize(("tasks", "first"), [((), "What is the capital of France?"), (("embedding",), "A dog runs")])
def test_the_sample_fits_the_models_task(tasks: tuple[str, ...], first: str) -> None:
    rows = list(source("sample", tasks=tasks))
    assert len(rows) == 8
    assert all(row.error is None for row in rows)
    assert str(_text(rows[0])).startswith(first)


@pytest.mark.slow
def test_standard_input_takes_json_and_text_as_it_comes() -> None:
    program = """
from engine.workloads.open import open_source
from engine.schemas.workload import StdinWorkloadSpec
for row in open_source(StdinWorkloadSpec(kind="stdin")):
    print(row.request.body["messages"][0]["content"] if row.request else "wrong", flush=True)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for line, expected in (('{"prompt": "a"}\n', "a\n"), ("plain\n", "plain\n"), ("{broken\n", "wrong\n")):
        child.stdin.write(line)
        child.stdin.flush()
        assert child.stdout.readline() == expected  # each row is there before the next is written
    child.communicate(timeout=10)
    assert child.returncode == 0


def test_the_fingerprint_sees_another_end(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("x" * 1_000_000 + "a")
    before = source("txt", path).fingerprint()
    path.write_text("x" * 1_000_000 + "b")
    assert source("txt", path).fingerprint() != before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
def test_reading_takes_no_more_memory_for_more_rows(kind: str, tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 60_000):
        path = tmp_path / str(count)
        line = '{"prompt": "some text"}\n' if kind == "jsonl" else "some text\n"
        path.write_text(("prompt\n" if kind == "csv" else "") + line * count)
        tracemalloc.start()
        assert sum(1 for _ in source(kind, path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000
