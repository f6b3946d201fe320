"""The life of a batch job: sent once, looked for when its creation is uncertain, polled, and read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.batches import input_file
from engine.batches.client import BatchClient
from engine.batches.job import Job, Outcome
from engine.batches.pause import Absence, Pause
from engine.core.clock import Clock
from engine.core.errors import InferenceError, ServerFailed, SetupError
from engine.dialects.batch import ENDED, FAILED, RUNNING, JobView, Member
from engine.schemas.policy import JobSpec

if TYPE_CHECKING:
    from engine.batches.ledger import Ledger

_SKEW_S = 3600.0
"""Allowed lag of the provider's clock: older jobs are skipped."""
_UNSURE = (408, 409, 425)
"""4xx statuses after which the job may still have been created."""
_STEPS = 10
"""Notices of a running job's progress, at most."""

log = logging.getLogger("engine.batches")


_GONE = (404, 410)
"""Statuses for a job or file that does not exist. A replica that lags sends them, too, for one that it does not know
yet."""


class Void(Exception):
    """The job does not exist, or it ended before it began: its rows are free."""

    def __init__(self, *, lost: bool = False) -> None:
        """`lost`: the job was at the provider, which may continue it and charge for it."""
        super().__init__("lost" if lost else "never began")
        self.lost = lost


class Refused(Exception):
    """The provider will never take this job; every row gets `error`."""

    def __init__(self, error: InferenceError) -> None:
        super().__init__(str(error))
        self.error = error


class JobLifecycle:
    """State that all jobs of a run share: the client, the ledger, and the pauses."""

    def __init__(
        self,
        client: BatchClient,
        ledger: Ledger,
        spec: JobSpec,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        """`say` shows a line to the user."""
        self.client = client
        self.ledger = ledger
        self.spec = spec
        self._clock = clock
        self._say = say
        self.alive: Callable[[], None] = lambda: None
        """Called when a job makes progress, although no row has an answer yet."""
        self._parked: dict[str | None, str] = {}
        """Keys that make no more jobs, each with its reason."""
        self._crowded = Pause(spec)
        """Pause between jobs that found the provider's queue full."""

    def key(self) -> str | None:
        """Returns a key for a new job, each in its turn. Raises SetupError when none is left."""
        left = [key for key in self.client.keys if key not in self._parked]
        if not left:
            reasons = "; ".join(f"{key or 'no key'}: {reason}" for key, reason in self._parked.items())
            raise SetupError(
                f"no key is left to make a batch job with: {reasons.rstrip('.')}. Next: set a key that works"
            )
        return left[len(self.ledger.jobs()) % len(left)]

    async def send(self, job: Job) -> None:
        """Sends a new job to the provider, once. Raises Refused, and SetupError (no key is left)."""
        assert job.request is not None
        record, request, pause = job.record, job.request, Pause(self.spec)
        while True:
            try:
                if record.input_file is None:
                    file = await self.client.upload(request, record.key)
                    if file is not None:
                        self.ledger.change(record, input_file=file)
                        while await input_file.is_pending(self.client, file, record.key):
                            self.alive()
                            await pause.wait()
                self.ledger.change(record, state="asked", asked_at=self._clock.wall())
                view = await self._create(job)
            except InferenceError as error:
                await self._try_again(job, error, pause)
                continue
            self._made(job, view)
            job.request = None  # its bytes are at the provider now
            return

    async def _create(self, job: Job) -> JobView:
        assert job.request is not None
        record = job.record
        job.sending = True
        try:
            return await self.client.create(job.request, record.input_file, record.key)
        except InferenceError as error:
            job.sending = False
            refused = error.status is not None and 300 <= error.status < 500 and error.status not in _UNSURE
            if not refused:
                self._note(job, f"creation unconfirmed ({error.kind}: {error.message}); checking the job list")
                found = await self.find(job)
                if found is not None:
                    return found
            self.ledger.change(record, state="meant")
            raise

    async def _try_again(self, job: Job, error: InferenceError, pause: Pause) -> None:
        """Waits, or takes the next key. Raises Refused if neither helps."""
        record = job.record
        if error.parks_key:
            self._parked[record.key] = f"{error.kind}: {error.message}"
            key = self.key()
            self._note(job, f"{error.kind}: {error.message}; continuing with the key {key}")
            # A file belongs to the account that uploaded it.
            self.ledger.change(record, key=key, input_file=None)
        elif error.retryable or await self._file_may_come(job, error):
            self._note(job, f"not sent yet: {error.kind}: {error.message}")
            await pause.wait(error.retry_after_s or 0.0)
        else:
            raise Refused(error)

    async def _file_may_come(self, job: Job, error: InferenceError) -> bool:
        """Returns True while the file of requests may still become ready: the provider says so, or `settle_s` is not
        over."""
        record, now = job.record, self._clock.wall()
        if not input_file.may_come(error, record.input_file):
            return False
        assert record.input_file is not None
        if await input_file.is_pending(self.client, record.input_file, record.key):
            self.alive()
            job.refused_at = None
            return True
        job.refused_at = now if job.refused_at is None else job.refused_at
        return now - job.refused_at < self.spec.settle_s

    def _made(self, job: Job, view: JobView) -> None:
        self.ledger.change(job.record, state="made", provider_id=view.id, said=view.said)
        job.sending = False
        self._note(job, f"{job.record.rows} rows are at the provider as {view.id}")

    async def adopt(self, job: Job) -> bool:
        """Takes up a job of an earlier session that may have been created; False: it was not."""
        view = await self.find(job)
        if view is not None:
            self._made(job, view)
        return view is not None

    async def find(self, job: Job) -> JobView | None:
        """Returns the job from the provider's list; None if it was not created, and will not be.

        Where jobs carry no tag, one that may be ours is waited for, because only its results say so.
        """
        record, pause = job.record, Pause(self.spec)
        asked_at = record.asked_at or record.meant_at
        others = {other.provider_id for other in self.ledger.jobs() if other.number != record.number}
        not_ours: set[str] = set()
        told = False
        while True:
            waiting = False
            try:
                for view in await self.client.listed(record.key, asked_at - _SKEW_S):
                    if view.tag == record.tag or (record.input_file and view.input_file == record.input_file):
                        return view
                    if not self.client.dialect.anonymous or view.id in others | not_ours or view.total != record.rows:
                        continue
                    if view.state != ENDED:
                        waiting = True
                    elif await self._holds(view, job):
                        return view
                    else:
                        not_ours.add(view.id)
            except InferenceError as error:
                self._refuse_locked_out(job, error)
                self._note(job, f"the provider's jobs can't be listed: {error.kind}: {error.message}")
                await pause.wait(error.retry_after_s or 0.0)
                continue
            if waiting and not told:
                told = True
                self._note(job, "a job of the same size is running and may be this one; its results will show")
            if waiting:
                self.alive()
            elif self._clock.wall() - asked_at >= self.spec.settle_s:
                return None
            await pause.wait()

    async def _holds(self, view: JobView, job: Job) -> bool:
        """True if a job's results are those of this one."""
        async for member in self.client.members(view, job.record.key):
            if member.custom_id is not None:
                return job.index_of(member.custom_id) is not None
        return False

    async def watch(self, job: Job) -> JobView:
        """Polls a job until it has ended. Raises Void when the provider does not know it any more: its replies said so
        for `settle_s`, and its list does not have the job either."""
        record, pause, step = job.record, Pause(self.spec), -1
        assert record.provider_id is not None
        absence = Absence(self._clock, self.spec.settle_s)
        while True:
            try:
                view = await self.client.poll(record.provider_id, record.key)
                absence.end()
            except InferenceError as error:
                self._refuse_locked_out(job, error)
                found = None
                if error.status in _GONE and absence.lasts():
                    found = await self._listed(job)
                    if found is None:
                        self._note(job, "the provider does not know it any more")
                        raise Void(lost=True) from error
                    absence.end()
                if found is None or found.state == RUNNING:
                    log.warning("batch job %d: %s: %s", record.number, error.kind, error.message)
                    await pause.wait(error.retry_after_s or 0.0)
                    continue
                view = found
            if view.state != FAILED:
                self.alive()
            if view.said != record.said:
                self.ledger.change(record, said=view.said)
            if view.state in (ENDED, FAILED):
                return view
            if view.done + view.failed:
                now = _STEPS * (view.done + view.failed) // max(1, record.rows)
                if now > step:
                    step = now
                    self._note(job, f"{view.done + view.failed} of {record.rows} rows are done")
            await pause.wait()

    async def _listed(self, job: Job) -> JobView | None:
        """Returns the job from the provider's list; None if it is not there, or there is no list. A list that can't be
        read now is read again."""
        record, pause = job.record, Pause(self.spec)
        while True:
            try:
                views = await self.client.listed(record.key, (record.asked_at or record.meant_at) - _SKEW_S)
            except InferenceError as error:
                self._refuse_locked_out(job, error)
                if error.status is not None and 400 <= error.status < 500 and not error.retryable:
                    return None
                await pause.wait(error.retry_after_s or 0.0)
                continue
            return next((view for view in views if view.id == record.provider_id), None)

    async def collect(self, job: Job, view: JobView) -> None:
        """Gives every row its outcome. Raises Void for a job that failed before it began."""
        if view.state == FAILED:
            await self._failed(job, view)
            return
        self._crowded.reset()
        pause, absence = Pause(self.spec), Absence(self._clock, self.spec.settle_s)
        while True:
            try:
                if view.done and not (view.files or view.inline) and not absence.lasts():
                    await pause.wait()  # the job has answers, but names no file of results yet
                    view = await self._seen_again(view, job)
                    continue
                answered, failed = await self._read(job, view)
                break
            except InferenceError as error:
                self._refuse_locked_out(job, error)
                if error.status in _GONE and absence.lasts():
                    self._note(job, "its results are gone")
                    answered = failed = 0
                    break
                self._note(job, f"its results can't be read: {error.kind}: {error.message}")
                await pause.wait(error.retry_after_s or 0.0)
                view = await self._seen_again(view, job)
        missing = ServerFailed(f"the batch job {view.id} ended ({view.said}) without a result for this row")
        job.settle_rest(Outcome(job.record, error=missing))
        again = job.record.rows - answered - failed
        self.ledger.change(
            job.record, ended_at=self._clock.wall(), answered=answered, failed=failed, again=again, said=view.said
        )
        self._note(job, f"{view.said}: {answered} rows answered, {failed} failed, {again} left unanswered")

    async def _seen_again(self, view: JobView, job: Job) -> JobView:
        """Returns the ended job as it is now, which may name other files of results; if it is gone, as it was."""
        try:
            now = await self.client.poll(view.id, job.record.key)
        except InferenceError:
            return view
        return now if now.state == ENDED else view

    async def _read(self, job: Job, view: JobView) -> tuple[int, int]:
        """Reads the results to their end: returns how many rows were answered, and how many have failed for good."""
        seen: set[int] = set()
        answered = failed = strange = place = 0
        order = self.ledger.rows_of(job.record) if self.client.dialect.ordered else []
        async for member in self.client.members(view, job.record.key):
            index = job.index_of(member.custom_id) if member.custom_id else None
            if index is None and member.custom_id is None and place < len(order):
                index = order[place]
            place += 1
            if index is None or index in seen:
                strange += 1
                continue
            seen.add(index)
            if _answers(member):
                answered += 1
            elif not _again(member):
                failed += 1
            job.settle(index, Outcome(job.record, member))
            if not place % 256:
                await asyncio.sleep(0)  # lets the answered rows run
        if strange:
            log.warning(
                "batch job %d: %d lines of its results are of no row, twice there, or unreadable",
                job.record.number,
                strange,
            )
        return answered, failed

    async def _failed(self, job: Job, view: JobView) -> None:
        """Handles a job that failed as a whole. Raises Void when its rows may go into another one."""
        error = view.error or ServerFailed("the batch failed")
        record = job.record
        self._note(job, f"{view.said}: {error.kind}: {error.message}")
        self.ledger.change(record, ended_at=self._clock.wall(), said=f"{view.said}: {error.message}")
        if view.bad_lines:
            order, before = self.ledger.rows_of(record), len(job.left)
            for line, failure in view.bad_lines.items():
                if 0 < line <= len(order):
                    job.settle(order[line - 1], Outcome(record, error=failure))
            self.ledger.change(record, failed=len(view.bad_lines), again=record.rows - len(view.bad_lines))
            # A job of the same rows would fail like this one, and so would the next.
            raise Void(lost=len(job.left) == before)
        if error.kind == "throttled":
            await self._crowded.wait(error.retry_after_s or 0.0)
            raise Void
        if error.parks_key:
            self._parked[record.key] = f"{error.kind}: {error.message}"
            raise Void
        self.ledger.change(record, failed=0 if error.retryable else record.rows)
        job.settle_rest(Outcome(record, error=error))

    def _refuse_locked_out(self, job: Job, error: InferenceError) -> None:
        """Raises SetupError when the job's own key has lost its access."""
        if error.parks_key:
            raise SetupError(
                f"batch job {job.record.number} is at the provider ({job.record.provider_id or job.record.tag}), but "
                f"{error.kind}: {error.message}. Next: set {job.record.key or 'a key'} to a key of the same account"
            ) from error

    def _note(self, job: Job, text: str) -> None:
        line = f"batch job {job.record.number}: {text}"
        log.info("%s", line)
        self._say(line)


def _answers(member: Member) -> bool:
    return member.error is None and member.status == 200


def _again(member: Member) -> bool:
    """True if another try may help a row that has no answer."""
    if member.error is not None:
        return member.error.retryable
    return member.status == 429 or member.status >= 500
