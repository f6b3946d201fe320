"""engine/telemetry/progress.py."""

from __future__ import annotations

import io

from engine.core.errors import ServerFailed
from engine.core.request import Result
from engine.core.usage import Usage
from engine.telemetry.progress import ProgressBar


def shown(mode: str, terminal: bool = False) -> str:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    progress = ProgressBar(mode, stream)  # type: ignore[arg-type]
    progress.start(5, 2)
    progress.add(Result("a", body={}, usage=Usage(3, 4)))
    progress.add(Result("b", error=ServerFailed("no")))
    progress.close()
    return stream.getvalue()


def test_without_a_terminal_there_is_one_line_at_the_end() -> None:
    text = shown("auto")
    assert text.startswith("2 rows (2 before): 1 ok, 1 failed, ")
    assert text.count("\n") == 1


def test_a_terminal_gets_a_bar_that_counts_earlier_rows() -> None:
    assert "4/5" in shown("auto", terminal=True)


def test_off_says_nothing() -> None:
    assert shown("off", terminal=True) == ""
