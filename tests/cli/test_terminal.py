"""Tables and colour on a terminal, in plain text elsewhere."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.cli.terminal import print_table
from tests.test_imports import loaded_by

ROOT = Path(__file__).parents[2]
SWEEP = ["plan", "-m", "provider=simulated,simulatd"]


def on_terminal(*words: str, cwd: Path, **env: str) -> str:
    """Runs `python -m engine` on a terminal of 200 columns and returns its screen."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", *words],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "200"}
        | env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(screen, 65536):
            shown += block
    except OSError:  # Linux ends the screen of a terminal without a writer so
        pass
    process.wait(timeout=60)
    os.close(screen)
    return shown.decode()


@pytest.mark.slow
def test_a_terminal_shows_a_table_with_colours(tmp_path: Path) -> None:
    shown = on_terminal(*SWEEP, cwd=tmp_path)
    assert "─" in shown
    assert "\x1b[32mok" in shown
    assert "\x1b[31minvalid" in shown
    assert "did you mean simulated" in shown
    assert "1 of 2 cells can start" in shown


@pytest.mark.slow
def test_no_color_keeps_the_table_and_leaves_out_the_colours(tmp_path: Path) -> None:
    shown = on_terminal(*SWEEP, cwd=tmp_path, NO_COLOR="1")
    assert "─" in shown
    assert "\x1b[3" not in shown
    assert "\x1b[31m" in on_terminal("plan", "provider=simulatd", cwd=tmp_path)
    assert "\x1b" not in on_terminal("plan", "provider=simulatd", cwd=tmp_path, NO_COLOR="1")


@pytest.mark.slow
def test_a_dumb_terminal_and_json_get_plain_text(tmp_path: Path) -> None:
    dumb = on_terminal(*SWEEP, cwd=tmp_path, TERM="dumb")
    assert "\x1b" not in dumb
    assert "─" not in dumb
    assert json.loads(on_terminal(*SWEEP, "--json", cwd=tmp_path))["sum"]["requests"] == 8


def test_numbers_are_aligned_to_the_right_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run", "ok"], [["a", 5], ["bcd", 12], ["e", None]])
    assert capsys.readouterr().out == "run  ok\na     5\nbcd  12\ne     -\n"


def test_what_is_piped_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "rows", "cost"], [["a", 8, "$0.01"], ["longer", 1200, None]])
    assert capsys.readouterr().out.splitlines() == [
        "name    rows   cost",
        "a          8  $0.01",
        "longer  1200      -",
    ]
    assert main(["plan", "provider=simulatd"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.slow
def test_rich_is_loaded_for_a_terminal_only(tmp_path: Path) -> None:
    code = "from engine.cli import main\nassert main(['plan', '-m', 'provider=simulated']) == 0"
    assert "rich" not in loaded_by(code)
