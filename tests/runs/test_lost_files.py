"""A run whose own files were edited, lost or damaged is refused: no call is paid again, no two specs share results."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.main import main
from tests.runs.checks import lines_of

ROWS = 6
Edit = Callable[[Path], None]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was answered to its end."""
    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(f'{{"prompt": "row {number}"}}\n' for number in range(ROWS)))
    words = ["provider=simulated", "provider.time=real", "workload=jsonl", f"workload.path={rows}"]
    assert main([*words, f"output.dir={tmp_path / 'run'}"]) == 0
    return tmp_path / "run"


def killed(run: Path) -> None:
    """Makes of it what a kill during its first session would have left."""
    manifest = (run / "manifest.json").read_text()
    manifest = manifest.replace('"finished",', '"running",').replace(f'"ok": {ROWS}', '"ok": 0')
    (run / "manifest.json").write_text(manifest)
    for name in ("results.jsonl", "dead.jsonl"):
        (run / name).unlink()


def resumed(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["runs", "resume", str(run), *words])
    return code, capsys.readouterr().err


def gone(run: Path) -> None:
    for file in run.glob("journal.sqlite*"):
        file.unlink()


def emptied(run: Path) -> None:
    gone(run)
    (run / "journal.sqlite").touch()


def without_rows(run: Path, condition: str = "1") -> None:
    connection = sqlite3.connect(run / "journal.sqlite")
    connection.execute(f"DELETE FROM record WHERE {condition}")
    connection.commit()
    connection.close()


def without_one_row(run: Path) -> None:
    without_rows(run, "idx = 3")


@pytest.mark.parametrize("lose", [gone, emptied, without_rows, without_one_row])
def test_a_lost_journal_is_refused_and_nothing_is_asked(
    run: Path, lose: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "results.jsonl").read_bytes()
    lose(run)
    for _ in range(2):  # the first refusal makes no journal for the second one to find
        code, said = resumed(run, capsys)
        assert code == 5
        assert "pay every call again" in said
        assert "results.jsonl" in said
        assert "may be repeated" not in said
    assert (run / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("lose", [gone, emptied])
def test_a_killed_run_without_a_journal_is_refused(run: Path, lose: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    killed(run)
    lose(run)
    code, said = resumed(run, capsys)
    assert code == 5
    assert "start a new run" in said


def test_a_damaged_journal_gives_no_advice_that_leads_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(run)
    journal = run / "journal.sqlite"
    content = bytearray(journal.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    journal.write_bytes(content)
    code, said = resumed(run, capsys)
    assert code == 5
    assert "it is damaged" in said
    assert "runs resume" not in said


@pytest.mark.parametrize("junk", [b"no database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_journal_that_is_another_file_is_refused(run: Path, junk: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "journal.sqlite").write_bytes(junk)
    code, said = resumed(run, capsys)
    assert code == 5
    assert "journal" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("was", "now"), [("seed: 0", "seed: 7"), (r"  name: \S+\n  tasks", "  name: other\n  tasks"), ("^", "extra: 1\n")]
)
@pytest.mark.parametrize("finished", [True, False])
def test_an_edited_spec_is_refused(
    run: Path, was: str, now: str, finished: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if not finished:
        killed(run)
    text = (run / "spec.yaml").read_text()
    edited = re.sub(was, now, text, count=1)
    assert edited != text
    (run / "spec.yaml").write_text(edited)
    code, said = resumed(run, capsys)
    assert code == 5
    assert "start a new run" in said


def test_an_edit_that_changes_no_answer_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "spec.yaml").read_text()
    (run / "spec.yaml").write_text(re.sub(r"drain_s: \S+", "drain_s: 7", text))
    assert resumed(run, capsys)[0] == 0
    assert resumed(run, capsys, "output.drain_s=8")[0] == 0
    assert len(lines_of(run / "results.jsonl")) == ROWS
