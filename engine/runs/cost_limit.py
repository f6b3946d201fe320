"""Adds up the cost of a run and stops it at `output.max_cost_usd`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.core.prices import PICO
from engine.runs.journal import entries
from engine.runs.report_format import money
from engine.telemetry.lines import read_line
from engine.telemetry.tally import AttemptLike

log = logging.getLogger("engine.runs")


class CostLimit:
    """The known costs of every attempt. Lives on one event loop.

    The limit is reached when the costs add up to it, or as soon as an attempt used something of unknown cost: from then
    on no limit could be kept. Calls in flight at that moment still end, and are paid for.
    """

    def __init__(self, limit_usd: float | None) -> None:
        """`limit_usd` None: nothing is counted, and the limit is never reached."""
        self._limit_usd = limit_usd
        self._picodollars = 0
        self._unknown: str | None = None
        self._reached = asyncio.Event()

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    async def wait_reached(self) -> None:
        await self._reached.wait()

    def read(self, journal: Path) -> None:
        """Counts what earlier sessions of the run have recorded. Raises OutputError."""
        if self._limit_usd is not None:
            for entry in entries(journal):
                try:
                    self.add(read_line(entry.payload.partition(b"\n")[0]).engine.attempts)
                except msgspec.DecodeError as error:
                    log.warning(
                        "row %d: its record can't be read, its cost counts as unknown: %s", entry.index + 1, error
                    )
                    self._unknown = f"row {entry.index + 1}"
                    self._reached.set()

    def add(self, attempts: Iterable[AttemptLike]) -> None:
        """Counts the attempts of one request."""
        if self._limit_usd is None:
            return
        for attempt in attempts:
            if attempt.cost is not None:
                self._picodollars += round(attempt.cost * PICO)
            elif attempt.usage is not None or attempt.outcome == "ok":
                self._unknown = attempt.target
        if self._unknown is not None or self._picodollars >= self._limit_usd * PICO:
            self._reached.set()

    @property
    def reason(self) -> str:
        """Returns the reason to stop, and the next step."""
        spent = money(self._picodollars / PICO)
        if self._unknown is not None:
            return (
                f"the cost of {self._unknown} is not known, so output.max_cost_usd can't be kept; {spent} are known to "
                "be spent. Set provider.price.input=… provider.price.output=…, or output.max_cost_usd=null"
            )
        return (
            f"{spent} are spent, the limit is {money(self._limit_usd or 0)} (output.max_cost_usd); raise it to continue"
        )
