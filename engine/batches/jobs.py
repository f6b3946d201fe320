"""The rows of a run on their way through batch jobs: collected, sent, waited for, and the rows that jobs left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING

from engine.batches.client import BatchClient
from engine.batches.job import Job, Outcome
from engine.batches.lifecycle import JobLifecycle, Refused, Void
from engine.core.errors import ConfigError, InferenceError, OutputError, ServerFailed, SetupError
from engine.core.pipeline import Stage, compose
from engine.core.request import PRIORITIES, Attempt, Context, EngineRecord, Request, Result
from engine.dialects.batch import JobRequest
from engine.dialects.client import WireCall
from engine.executors.remote import RemoteExecutor
from engine.media.fields import may_hold_media
from engine.workloads.open import Row

if TYPE_CHECKING:
    from engine.api.engine import Engine
    from engine.batches.ledger import JobRecord, Ledger

LINE_BYTES = 200
"""Approximate size of a job's line without its body: id, method and path."""
_KEPT = ("trace", "cache", "preflight", "parameters")
"""Stages of the chain that a row of a job passes; the others concern live calls."""


class _Live(Exception):
    """Raised for a row that a live call must answer."""


class _Draft:
    """Rows of one task and model that wait for more rows."""

    def __init__(self, task: str, model: str) -> None:
        self.task = task
        self.model = model
        self.rows: list[tuple[int, WireCall, asyncio.Future[Outcome]]] = []
        self.bytes = 0


class Jobs:
    """Answers rows through the batch API of the engine's first target. Lives on the engine's event loop."""

    def __init__(self, engine: Engine, ledger: Ledger, say: Callable[[str], None]) -> None:
        """Takes over the ledger, and closes it. Raises ConfigError for a target without a batch API."""
        chain = engine.pipeline.target_chains[0]
        if not isinstance(chain.executor, RemoteExecutor):
            raise ConfigError(
                f"policy.batch.strategy: {chain.name} is not remote and has no batch API; use policy/batch=default"
            )
        self._engine = engine
        self._ledger = ledger
        self._spec = engine.spec.policy.batch.job
        self._executor = chain.executor
        self._target = chain.name
        client = BatchClient(chain.executor, engine.services)
        self._client = client
        self._tasks = frozenset(client.spec.tasks)
        self._max_rows = min(self._spec.max_rows, client.spec.max_rows)
        self._max_bytes = min(self._spec.max_bytes, client.spec.max_bytes)
        self.life = JobLifecycle(client, ledger, self._spec, engine.clock, say)
        self._say = say
        layers = [layer for layer in (*engine.pipeline.outer, *chain.layers) if layer.cls.name in _KEPT]
        self._chain: Stage = compose(layers, self._member)
        self._places = asyncio.Semaphore(self._spec.max_jobs)
        self._loop = asyncio.get_running_loop()
        self._drafts: dict[tuple[str, str], _Draft] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._joined_at = 0.0
        self._adopted: dict[int, Job] = {}
        """Row → the job of an earlier session that holds it."""
        self._tries: dict[int, int] = {}
        """Row → the number of jobs that it was in, without zeros."""
        self._running: dict[asyncio.Task[None], Job] = {}
        self._draining = False
        self._broken: Exception | None = None
        self._noted: set[str] = set()
        self.left: list[JobRecord] = []
        """After `aclose`: the jobs that are, or may be, at the provider, and have not been read to their end."""

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self, alive: Callable[[], None]) -> None:
        """Takes up the jobs of earlier sessions. `alive` is called whenever a job makes progress."""
        self.life.alive = alive
        for record in self._ledger.jobs():
            if record.state == "meant":  # at most an upload was made, no job
                self._ledger.change(record, state="void", said="stopped before it was created")
        held = self._ledger.held()
        records = {record.number: record for record in self._ledger.jobs()}
        rows: dict[int, list[int]] = {}
        for row, (number, tries) in held.items():
            rows.setdefault(number, []).append(row)
            self._tries[row] = tries - 1
        for number, members in sorted(rows.items()):
            record = records[number]
            job = Job(record, members)
            self._adopted.update(dict.fromkeys(members, job))
            self._begin(job)
            self._say(f"batch job {number}: taken up again, {len(members)} of its {record.rows} rows are to come")

    def flush(self) -> None:
        """Sends the drafts: no row comes for a while."""
        for draft in list(self._drafts.values()):
            self._send(draft)

    def drain(self) -> None:
        """Cancels all waiting rows, for a resume; the jobs stay at the provider. Live calls are the engine's."""
        self._draining = True
        drafts, self._drafts = self._drafts, {}
        for draft in drafts.values():
            for _, _, waiter in draft.rows:
                waiter.cancel()
        for job in self._running.values():
            job.leave()

    async def aclose(self, grace_s: float) -> None:
        """Ends all work. A job that is being sent has `grace_s` seconds to become known."""
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        sending = [task for task, job in self._running.items() if job.sending]
        for task in set(self._running) - set(sending):
            task.cancel()
        if sending:
            await asyncio.wait(sending, timeout=grace_s)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.left = self._ledger.open_jobs()
        self._ledger.close()

    # -- rows ---------------------------------------------------------------------------------------------------

    async def answer(self, row: Row) -> Result:
        """Returns the row's result. Raises CancelledError for a row that is left for a resume, SetupError when no
        further job can be made."""
        request = row.request
        assert request is not None
        if not self._fits(request):
            return await self._engine.submit(request)
        record = EngineRecord(priority=request.priority, metadata=request.metadata)
        context = Context(record, self._engine.clock.monotonic(), PRIORITIES[request.priority])
        context.row = row.index
        try:
            result = await self._chain(request, context)
        except InferenceError as error:
            result = Result(request.id or "", error=error)
        except _Live:
            return await self._go_live(request, record)
        result.id, result.engine = request.id or "", record
        self._engine.count(request, result)
        return result

    async def _go_live(self, request: Request, record: EngineRecord) -> Result:
        """Returns the result of live calls; the attempts of batch jobs in `record` come before theirs."""
        result = await self._engine.submit(request)
        made = result.engine.attempts
        if record.attempts and made:
            made[0].role, made[0].why = "retry", f"a batch job left it unanswered: {record.attempts[-1].outcome}"
        made[:0] = record.attempts
        return result

    def _fits(self, request: Request) -> bool:
        """True if a request can wait for a job, and the API takes its task."""
        if request.deadline_s is not None:
            self._note("rows with a deadline_s can't wait for a batch job; they are answered by live calls")
            return False
        if request.task not in self._tasks:
            self._note(
                f"rows for {request.task} are answered by live calls: provider.batch.tasks has "
                f"{', '.join(sorted(self._tasks))}"
            )
            return False
        if request.priority != "normal":
            self._note("priorities count for live calls only; the rows of a batch job are all alike")
        return True

    async def _member(self, request: Request, context: Context) -> Result:
        """Answers one row, in as many jobs as it takes; the last stage of the chain."""
        index = context.row
        assert index is not None
        if index not in self._adopted and may_hold_media(request.task, request.body):
            request = await self._executor.with_media(request)
        while True:
            began = self._engine.clock.monotonic()
            outcome = await self._place(index, request, context)
            if outcome.free:
                if not outcome.lost or self._tried(index) < self._spec.max_tries:
                    continue
                outcome.error = ServerFailed(
                    f"the provider lost {self._tries[index]} batch jobs with this row (policy.batch.job.max_tries)"
                )
            attempt = Attempt(
                self._target,
                outcome.job.key,
                why=f"batch job {outcome.job.provider_id or outcome.job.tag}",
                batch=True,
                role="retry" if context.record.attempts else "first",
                started_s=began - context.submitted_at,
                duration_s=self._engine.clock.monotonic() - began,
                sent=True,
            )
            context.attempt = attempt
            context.record.attempts.append(attempt)
            try:
                return self._read(request, outcome, attempt, context)
            except InferenceError as error:
                if not self._goes_again(index, error, context):
                    raise

    def _place(self, index: int, request: Request, context: Context) -> asyncio.Future[Outcome]:
        """Puts the row into the job that holds it, or into the next one. Raises _Live for a row that fits no job."""
        waiter: asyncio.Future[Outcome] = self._loop.create_future()
        job = self._adopted.pop(index, None)
        if self._draining:
            waiter.cancel()
        elif self._broken is not None:
            raise self._broken
        elif job is not None:
            job.attach(index, waiter)
        else:
            wire = self._executor.wire(request, context)
            if not self._client.dialect.takes(request.task, wire) or len(wire.content) + LINE_BYTES > self._max_bytes:
                self._note("rows that can't go into a batch job, by their form or size, are answered by live calls")
                raise _Live
            model = request.body.get("model") or self._executor.target.model_id
            self._enlist(index, request.task, model, wire, waiter)
        return waiter

    def _read(self, request: Request, outcome: Outcome, attempt: Attempt, context: Context) -> Result:
        """Returns the result in a job's line. Raises the row's error."""
        member = outcome.member
        failure = member.error if member is not None else outcome.error
        try:
            if member is None or failure is not None:
                assert failure is not None
                raise copy(failure)  # many rows share the error of a whole job
            attempt.status = member.status
            try:
                reply = self._executor.answer(request, member.status, member.headers, member.content)
            except InferenceError as error:
                raise self._executor.redacted(error, outcome.job.key) from error.__cause__
        except InferenceError as error:
            attempt.outcome, attempt.message = error.kind, error.message
            attempt.provider_request_id = error.provider_request_id
            raise
        for warning in reply.warnings:
            context.warn(warning)
        attempt.outcome, attempt.usage = "ok", reply.usage
        attempt.provider_request_id = reply.provider_request_id
        prices = self._engine.resources.find(("prices", self._target))
        if prices is not None and reply.usage is not None:
            attempt.cost = prices.batch_cost(request.body, reply.usage)
        return Result(request.id or "", reply.body, usage=reply.usage)

    def _goes_again(self, index: int, error: InferenceError, context: Context) -> bool:
        """Returns True if the row goes into another job. Raises _Live when a live call is its next try."""
        tries = self._tried(index)
        if not error.retryable or self._spec.unanswered == "dead":
            return False
        if self._spec.unanswered == "live":
            raise _Live
        if tries >= self._spec.max_tries:
            context.warn(f"unanswered in {tries} batch jobs (policy.batch.job.max_tries)")
            return False
        return True

    def _tried(self, index: int) -> int:
        """Counts one more job of a row; returns how many it was in."""
        tries = self._tries[index] = self._tries.get(index, 0) + 1
        return tries

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._say(text)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def _enlist(self, index: int, task: str, model: str, wire: WireCall, waiter: asyncio.Future[Outcome]) -> None:
        size = len(wire.content) + LINE_BYTES
        kind = task, model
        draft = self._drafts.get(kind)
        if draft is not None and draft.bytes + size > self._max_bytes:
            self._send(draft)
            draft = None
        if draft is None:
            draft = self._drafts.setdefault(kind, _Draft(task, model))
        draft.rows.append((index, wire, waiter))
        draft.bytes += size
        self._joined_at = self._loop.time()
        if len(draft.rows) >= self._max_rows:
            self._send(draft)
        elif self._timer is None:
            self._timer = self._loop.call_later(self._spec.linger_s, self._linger)

    def _linger(self) -> None:
        """Sends the drafts that have not grown for a while."""
        self._timer = None
        rest_s = self._joined_at + self._spec.linger_s - self._loop.time()
        if rest_s > 0:
            self._timer = self._loop.call_later(rest_s, self._linger)
            return
        for draft in list(self._drafts.values()):
            self._send(draft)

    def _send(self, draft: _Draft) -> None:
        """Makes a job of a draft: first in the ledger, then at the provider as soon as a slot is free."""
        self._drafts.pop((draft.task, draft.model), None)
        draft.rows = sorted((row for row in draft.rows if not row[2].done()), key=lambda row: row[0])
        if not draft.rows or self._draining:
            for _, _, waiter in draft.rows:
                waiter.cancel()
            return
        try:
            key = self.life.key()
            rows = [index for index, _, _ in draft.rows]
            record = self._ledger.mean(
                self._target, key, draft.task, draft.model, rows, draft.bytes, self._engine.clock.wall()
            )
        except (SetupError, OutputError) as error:
            self._break(error)
            for _, _, waiter in draft.rows:
                waiter.set_exception(error)
            return
        member = self._client.dialect.member
        lines = [member(f"{record.tag}-{index}", draft.task, wire) for index, wire, _ in draft.rows]
        job = Job(record, rows, JobRequest(record.tag, draft.task, draft.model, self._spec.window, lines))
        for index, _, waiter in draft.rows:
            job.attach(index, waiter)
        self._begin(job)

    def _begin(self, job: Job) -> None:
        task = self._loop.create_task(self._run(job))
        self._running[task] = job
        task.add_done_callback(self._running.pop)

    async def _run(self, job: Job) -> None:
        """Takes a job from any state to its end."""
        record, life = job.record, self.life
        try:
            async with self._places:
                await self._bring(job)
                if not self._draining:
                    await life.collect(job, await life.watch(job))
        except Void as void:
            self._ledger.change(record, state="void")
            for index in list(job.left):
                job.settle(index, Outcome(record, lost=void.lost))
        except Refused as refusal:
            if refusal.error.kind == "too_long" and record.rows > 1:
                self._max_bytes = min(self._max_bytes, record.bytes // 2 + LINE_BYTES)
                self._say(
                    f"batch job {record.number}: too large; its rows go in jobs of {self._max_bytes} bytes at most"
                )
                self._ledger.change(record, state="void", said=f"refused: {refusal}")
                job.settle_rest(Outcome(record))
                return
            self._ledger.change(record, said=f"refused: {refusal}", failed=record.rows)
            job.settle_rest(Outcome(record, error=refusal.error))
        except asyncio.CancelledError:
            job.leave()
            raise
        except Exception as error:  # the boundary: it ends the run, through the rows that wait
            self._break(error)
            job.leave(error)

    async def _bring(self, job: Job) -> None:
        """Makes sure that the job is at the provider. Raises Void and Refused."""
        record = job.record
        if record.key not in self._client.keys:
            raise SetupError(
                f"batch job {record.number} was made with the key {record.key}, which is not set now. "
                f"Next: set {record.key}, then resume"
            )
        if record.state == "made":
            return
        if job.request is not None:
            await self.life.send(job)
        elif not await self.life.adopt(job):
            raise Void

    def _break(self, error: Exception) -> None:
        """Ends the run: waiting and later rows get the error."""
        self._broken = self._broken or error
