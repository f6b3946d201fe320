"""One batch job and the rows that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.core.errors import InferenceError
from engine.dialects.batch import JobRequest, Member

if TYPE_CHECKING:
    from engine.batches.ledger import JobRecord


@dataclass(slots=True)
class Outcome:
    """The result of a job for one of its rows."""

    job: JobRecord
    member: Member | None = None
    """Its line of the results."""
    error: InferenceError | None = None
    """The error in its place. Without either the row is free: the job never began, or the provider lost it."""
    lost: bool = False
    """True for a free row whose job existed: it counts in `policy.batch.job.max_tries`."""

    @property
    def free(self) -> bool:
        return self.member is None and self.error is None


class Job:
    """A job and its rows, by their index. An outcome that comes before its row was read is kept for the row."""

    def __init__(self, record: JobRecord, rows: Iterable[int], request: JobRequest | None = None) -> None:
        """`rows`: those that have no outcome yet. `request`: None for a job of an earlier session."""
        self.record = record
        self.request = request
        self.left = set(rows)
        self.sending = False
        """True while the call that creates it is in flight."""
        self.refused_at: float | None = None
        """Time of its first refusal because of its file, in seconds since 1970."""
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._early: dict[int, Outcome] = {}

    def index_of(self, custom_id: str) -> int | None:
        """Returns the row of one of our custom ids; None if this job does not have it."""
        prefix, _, number = custom_id.rpartition("-")
        return int(number) if prefix == self.record.tag and number.isascii() and number.isdigit() else None

    def attach(self, index: int, waiter: asyncio.Future[Outcome]) -> None:
        """Lets a row wait for its outcome, which may exist already."""
        early = self._early.pop(index, None)
        if early is None:
            self._waiting[index] = waiter
        else:
            waiter.set_result(early)

    def settle(self, index: int, outcome: Outcome) -> bool:
        """Gives a row its outcome. False: the row has one already, or is not in this job."""
        if index not in self.left:
            return False
        self.left.discard(index)
        waiter = self._waiting.pop(index, None)
        if waiter is None:
            self._early[index] = outcome
        elif not waiter.done():
            waiter.set_result(outcome)
        return True

    def settle_rest(self, outcome: Outcome) -> int:
        """Gives the outcome to all rows without one; returns how many."""
        rest = list(self.left)
        for index in rest:
            self.settle(index, outcome)
        return len(rest)

    def leave(self, error: BaseException | None = None) -> None:
        """Ends the wait of all rows: they are cancelled, or get the error that ends the run."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            if waiter.done():
                continue
            if error is None:
                waiter.cancel()
            else:
                waiter.set_exception(error)
