"""Tables and colour: through rich on a terminal, plain text elsewhere. NO_COLOR turns colours off."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from engine.core.printable import one_line

STATES = {"ok": "green", "finished": "green", "failed": "red", "FAIL": "red", "crashed": "red", "invalid": "red"}
"""Colour of a table's cell with this text."""
_FOLDED_CHARS = 20
"""Least width of a column that is folded; the terminal wraps longer lines."""
_GAP = 2
"""Spaces between columns."""
_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


def is_terminal(stream: TextIO) -> bool:
    """Returns True if a person reads the stream, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str, style: str, stream: TextIO | None = None) -> str:
    """Returns the text in red, green, yellow or bold if the stream, or standard output, is a terminal with colours."""
    shown = is_terminal(stream or sys.stdout) and not os.environ.get("NO_COLOR")
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if shown else text


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], plain_heads: bool = True) -> None:
    """Prints a table on standard output; numbers to the right. Plain text has heads if `plain_heads`.

    A terminal folds the last column only, so that names can be copied from the others.
    """
    cells = [["-" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in cells) for column in range(len(heads))]
    if not is_terminal(sys.stdout):
        print(plain_table([heads, *cells] if plain_heads else cells, numeric))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    used = 0
    for index, (head, right) in enumerate(zip(heads, numeric, strict=True)):
        widest = max((len(row[index]) for row in cells), default=0)
        shown = head if len(head) <= widest else re.sub(r"(?<=\.)|\s", "\n", head)
        width = max(widest, *map(len, shown.split("\n")))
        room = Console().width - used - _GAP
        if index == len(heads) - 1 and room >= _FOLDED_CHARS:
            width = min(width, room)
        table.add_column(shown, justify="right" if right else "left", width=width, overflow="fold")
        used += width + _GAP
    for row in cells:
        table.add_row(*(Text(cell, style=STATES.get(cell, "")) for cell in row))
    Console(width=used).print(table)


def print_reasons(reasons: Sequence[str]) -> None:
    """Prints each distinct reason once, with the numbers of the rows that have it; empty ones are left out."""
    numbers: dict[str, list[str]] = {}
    for number, reason in enumerate(reasons, start=1):
        numbers.setdefault(reason, []).append(str(number))
    for reason, having in numbers.items():
        if reason:
            print(f"{coloured(', '.join(having), 'red')}: {reason}")


def plain_table(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Returns rows in aligned columns of plain text; the columns of numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    """Returns True for a number with its unit, and for a cell without a value."""
    if text == "-":
        return True
    try:
        float(re.sub(r"[,%$ ]", "", text) or 0)
    except ValueError:
        return False
    return True


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
