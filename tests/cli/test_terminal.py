"""Tables on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from engine.cli.terminal import print_table


def test_numbers_are_aligned_to_the_right_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run", "ok"], [["a", 5], ["bcd", 12], ["e", None]])
    assert capsys.readouterr().out == "run  ok\na     5\nbcd  12\ne     -\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colour_unless_it_is_refused(environment: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    code = "from engine.cli.terminal import print_table; print_table(['state'], [['failed']])"
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "FORCE_COLOR")}
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=theirs,
        env={**clean, "TERM": "xterm", **environment},
        check=True,
        timeout=60,
    )
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "failed" in shown
    assert ("\x1b[31mfailed" in shown) is coloured
