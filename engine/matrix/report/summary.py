"""Counts the rows of the matrix, and lists the changes since the last run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from engine.matrix.report.record import Row, Status

_UNTRIED: tuple[Status, ...] = ("unavailable", "no device")


class Count(msgspec.Struct):
    """The outcomes of the rows on one hardware."""

    hardware: str
    tried: int
    """Rows that could be built, if the hardware exists."""
    statuses: dict[str, int]
    generative: int
    """Rows that generate tokens and were compared."""
    same_tokens: int

    @property
    def ok(self) -> int:
        return self.statuses.get("ok", 0)

    @property
    def share(self) -> str:
        """Formats a share: 100 % only for all rows."""
        if not self.tried:
            return "–"
        percent = 100 * self.ok / self.tried
        return f"{percent if self.ok == self.tried else min(percent, 99.9):.1f} %"


class Change(msgspec.Struct):
    """A cell whose status differs from the last run."""

    name: str
    hardware: str
    before: str
    """Empty: the row is new."""
    now: str
    """Empty: the row is gone."""

    @property
    def better(self) -> bool:
        return self.now == "ok"


def counts(rows: Mapping[str, Row], hardware: Sequence[str]) -> list[Count]:
    found = []
    for name in hardware:
        cells = [row.cells[name] for row in rows.values() if name in row.cells]
        compared = [cell.tokens_equal for cell in cells if cell.tokens_equal is not None]
        found.append(
            Count(
                hardware=name,
                tried=sum(cell.status not in _UNTRIED for cell in cells),
                statuses=dict(Counter(cell.status for cell in cells).most_common()),
                generative=len(compared),
                same_tokens=sum(compared),
            )
        )
    return found


def changes(before: Mapping[str, Row], now: Mapping[str, Row], hardware: Sequence[str]) -> list[Change]:
    """Returns cells whose status differs, for rows that both runs tried; rows of only one run come last."""
    found = []
    for name in sorted({*before, *now}):
        for place in hardware:
            old, new = (rows[name].cells.get(place) if name in rows else None for rows in (before, now))
            if old is not None and new is not None and old.status != new.status:
                found.append(Change(name, place, old.status, new.status))
    return found
