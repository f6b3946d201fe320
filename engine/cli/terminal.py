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
_FOLDED_CHARS = 10
"""Least width of a column that is folded."""
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

    A terminal that is too narrow folds columns of text, the last one first.
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
    shown, widths = [], []
    for index, head in enumerate(heads):
        widest = max((len(row[index]) for row in cells), default=0)
        shown.append(head if len(head) <= widest else re.sub(r"(?<=[._])|\s", "\n", head))
        widths.append(max(widest, *map(len, shown[-1].split("\n"))))
    _fit(widths, numeric, Console().width)
    for head, right, width in zip(shown, numeric, widths, strict=True):
        table.add_column(head, justify="right" if right else "left", width=width, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=STATES.get(cell, "")) for cell in row))
    Console(width=sum(widths) + _GAP * len(widths)).print(table)


def _fit(widths: list[int], numeric: Sequence[bool], room: int) -> None:
    """Narrows columns of text until a table fits the room, the last one first; numbers are never folded."""
    texts = [index for index in reversed(range(len(widths))) if not numeric[index]]
    for index in texts:
        excess = sum(widths) + _GAP * len(widths) - room
        if excess > 0:
            widths[index] = min(widths[index], max(_FOLDED_CHARS, widths[index] - excess))


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
