"""Tables and colour: through rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

COLOURS = {"ok": "green", "finished": "green", "failed": "red", "FAIL": "red", "crashed": "red", "invalid": "red"}
"""Colour of a cell with this text."""


def is_terminal(stream: TextIO) -> bool:
    """Returns True if a person reads the stream, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table on standard output; numbers to the right. rich honours NO_COLOR."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in cells) for column in range(len(heads))]
    if not is_terminal(sys.stdout):
        print(plain_table(heads, cells, numeric))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head, right in zip(heads, numeric, strict=True):
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)


def plain_table(heads: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Returns a table in aligned columns of plain text."""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = []
    for row in (heads, *cells):
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text == "-" or text.translate(str.maketrans("", "", ",.% ")).isdigit()


def in_red(text: str, stream: TextIO) -> str:
    """Returns the text in red if a person reads the stream and NO_COLOR is not set."""
    return f"\x1b[31m{text}\x1b[0m" if is_terminal(stream) and not os.environ.get("NO_COLOR") else text
