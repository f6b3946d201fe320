"""Answers that a run shows as they are durable."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.cli.shown_answers import are_shown, text_of
from engine.config.compose import compose
from engine.core.errors import Throttled
from engine.core.request import Result
from engine.workloads.open import open_source

CHAT = {"choices": [{"message": {"role": "assistant", "content": "Paris."}}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (CHAT, "q1  Paris."),
        ({"choices": [{"message": {"content": "a\nb"}}]}, "q1\n  a\n  b"),
        ({"choices": [{"message": {"content": ""}}]}, "q1  (empty)"),
        ({"choices": [{"message": {"content": "x\n" * 30}}]}, "q1" + "\n  x" * 20 + "\n  … 10 more lines"),
        ({"object": "list", "data": [{"embedding": [0.1, 0.2]}, {"embedding": [0.3, 0.4]}]}, "q1  2 × 2 numbers"),
        ({"outputs": [{"label": "cat"}], "model": "m"}, 'q1  {"outputs": [{"label": "cat"}]}'),
    ],
)
def test_an_answer_is_shown_under_its_id(body: dict[str, Any], text: str) -> None:
    assert text_of(Result("q1", body)) == text


def test_a_failure_is_shown_in_its_place() -> None:
    assert text_of(Result("q1", error=Throttled("too fast"))) == "q1  failed  throttled: too fast"


@pytest.mark.parametrize(("show", "shown"), [("on", True), ("off", False), ("auto", False)])
def test_without_a_terminal_only_on_shows(show: str, shown: bool) -> None:
    spec = compose(["provider=simulated", f"output.show={show}"]).spec
    assert are_shown(spec, open_source(spec.workload)) is shown


def on_terminal(tmp_path: Path, *words: str) -> str:
    """What a run prints on a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "engine", "provider=simulated", f"output.root={tmp_path}", *words]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    said = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the terminal is gone
            break
        if not piece:
            break
        said += piece
    assert child.wait(60) == 0, child.communicate()
    os.close(master)
    return said.decode()


@pytest.mark.slow
def test_a_short_run_on_a_terminal_shows_its_answers_and_names_the_report(tmp_path: Path) -> None:
    said = on_terminal(tmp_path)
    assert said.count("[simulated]") == 8
    assert "france  [simulated]" in said
    (run,) = tmp_path.iterdir()
    assert f"report: {run / 'report.html'}" in said


@pytest.mark.slow
def test_a_long_run_does_not(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("hello\n" * 101)
    words = ["workload=txt", f"workload.path={tmp_path / 'rows.txt'}", f"output.dir={tmp_path / 'run'}"]
    said = on_terminal(tmp_path, *words)
    assert "[simulated]" not in said
    assert "101 of 101 answered" in said
