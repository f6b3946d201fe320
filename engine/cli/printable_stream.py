"""Standard output and standard error of the command line: text from outside can't steer a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from engine.cli.terminal import is_terminal
from engine.core.printable import printable

_STYLE = re.compile("\x1b\\[(?:(?:0|1|3[1-3])(?:;(?:0|1|3[1-3]))*)?m")
"""The styles of `terminal.coloured` and of its tables."""


class PrintableStream:
    """A text stream that escapes control characters; a terminal keeps our few styles. All else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream
        """For what moves the cursor on purpose, such as a progress bar."""

    def write(self, text: str) -> int:
        if text.isprintable():
            return self.unfiltered.write(text)
        if not is_terminal(self.unfiltered):
            self.unfiltered.write(printable(text))
            return len(text)
        styles = [*_STYLE.findall(text), ""]
        parts = _STYLE.split(text)
        self.unfiltered.write("".join(printable(part) + style for part, style in zip(parts, styles, strict=True)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


@contextmanager
def printable_streams() -> Iterator[None]:
    """Makes standard output and standard error printable while the context is open."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, PrintableStream(sys.stdout))
    sys.stderr = cast(TextIO, PrintableStream(sys.stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
