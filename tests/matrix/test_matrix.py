"""The verb from end to end: small models of each kind on the hardware that is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.matrix.report import record

pytestmark = pytest.mark.slow
ROWS = ["bert", "gpt2", "deta"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("matrix")
    assert main(["matrix", *ROWS, "--hardware", "cpu,openvino,cuda", "--jobs", "2", "--out", str(out)]) == 0
    return out


def cells(out: Path, name: str) -> dict[str, Any]:
    return record.read(out / "rows.jsonl")[name].cells


def test_a_generator_gives_the_same_tokens_on_openvino(finished: Path) -> None:
    assert cells(finished, "gpt2")["openvino"].tokens_equal is True


def test_a_graph_takes_other_numbers_of_rows(finished: Path) -> None:
    assert cells(finished, "bert")["openvino"].batch_sizes == [1, 2, 4]


def test_times_and_memory_are_recorded(finished: Path) -> None:
    for cell in (cells(finished, "bert")[name] for name in ("cpu", "openvino")):
        assert cell.load_s > 0
        assert cell.run_s > 0
        assert cell.peak_bytes > 0
        assert cell.precision == "float32"


def test_text_is_made_by_a_tokenizer(finished: Path) -> None:
    assert "tokenizer" in record.read(finished / "rows.jsonl")["bert"].processors


def test_a_type_that_left_transformers_stays_as_a_row_with_its_reason(finished: Path) -> None:
    assert cells(finished, "deta")["cpu"].status == "unavailable"
    assert "left transformers" in cells(finished, "deta")["cpu"].reason


def test_missing_hardware_is_said_and_not_counted(finished: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert cells(finished, "bert")["cuda"].status == "no device"
    summary = {one["hardware"]: one for one in json.loads((finished / "matrix.json").read_text())["summary"]}
    assert summary["cuda"]["tried"] == 0


def test_resume_runs_only_what_is_not_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "rows.jsonl").read_bytes()
    words = ["matrix", "bert", "gpt2", "bart", "--hardware", "cpu", "--out", str(finished), "--resume"]
    assert main(words) == 0
    assert (finished / "rows.jsonl").read_bytes().startswith(before)
    shown = capsys.readouterr().out
    assert "[3/3] bart" in shown
    assert "] bert" not in shown


def test_a_new_run_is_compared_with_the_last_one(tmp_path: Path) -> None:
    record.append(tmp_path / "rows.jsonl", record.Row("bert", "mapped", cells={"cpu": record.Cell("failed")}))
    assert main(["matrix", "bert", "--hardware", "cpu", "--out", str(tmp_path)]) == 0
    assert "| bert | cpu | failed | **ok** |" in (tmp_path / "diff.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hardware", "gpu"], "--hardware gpu"),
        (["--hardware", ","], "names nothing"),
        (["--jobs", "0"], "--jobs: got 0; expected"),
        (["--time-limit", "0"], "--time-limit: got 0; expected"),
        (["--memory-limit", "-1"], "--memory-limit: got -1; expected"),
        (["berd"], "matches no model type"),
    ],
)
def test_a_mistake_costs_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", *words]) == 2
    assert said in capsys.readouterr().err
