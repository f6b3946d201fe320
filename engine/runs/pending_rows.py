"""The rows of a workload that no earlier session has recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.core.errors import OutputError
from engine.runs.journal import recorded
from engine.runs.results import digest_of
from engine.workloads.open import Row, Source


class PendingRows:
    """The rows without a record, each with its digest, for one reader. Rows and records both come by index, so a
    million records are skipped without being held, and most rows without being parsed."""

    def __init__(self, source: Source, journal: Path) -> None:
        self.rows = 0
        """Rows that were read or skipped."""
        self.passed = 0
        """Rows that were skipped."""
        self._source = source
        self._records = recorded(journal)
        self._next = next(self._records, None)

    def __iter__(self) -> Iterator[tuple[Row, int]]:
        """Raises OutputError for a row that differs from the recorded one, SetupError when the source can't be read."""
        for row in self._source.rows(self._knows if self._next is not None else None):
            digest = digest_of(row.letter())
            if self._next is None or self._next[0] != row.index:
                self.rows = row.index + 1
                yield row, digest
            elif self._next[1] == digest:
                self._pass()
            else:
                raise OutputError(
                    f"output.resume: row {row.index + 1} ({row.id}) of {self._source.name} is not the one that was "
                    "recorded; put the old workload back, or start a new run"
                )

    def refuse_shorter(self) -> None:
        """Raises OutputError when rows are recorded that the workload, read to its end, no longer has."""
        if self._next is not None:
            raise OutputError(
                f"output.resume: {self._source.name} has only {self.rows} rows now, but row {self._next[0] + 1} is "
                "recorded; put the old workload back, or start a new run"
            )

    def _knows(self, index: int, letter: bytes) -> bool:
        if self._next is None or self._next[0] != index or self._next[1] != digest_of(letter):
            return False
        self._pass()
        return True

    def _pass(self) -> None:
        assert self._next is not None
        self.rows = self._next[0] + 1
        self.passed += 1
        self._next = next(self._records, None)
