"""Executes a run: rows in, durable results out, at most a window of rows between the two.

Exactly-once record, at-least-once call: a row is recorded once, whatever happens; a call whose record was not yet
durable when the process died is made again.

On a virtual-time loop (engine.virtual_time) everything happens on the loop, in the same order every time: rows are
read there, and full groups of records are committed there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.api.engine import Engine
from engine.batches.ledger import Ledger, held_rows
from engine.batches.operations import Jobs
from engine.core.atomic_file import CantWrite
from engine.core.errors import EngineError, Interrupted, OutputError, OverLimit, SetupError, Stalled
from engine.core.resources import Resources
from engine.core.virtual_time import VirtualTimeLoop
from engine.runs import stall_notices
from engine.runs.arrivals import Arrivals
from engine.runs.cost_limit import CostLimit
from engine.runs.directory import RunDirectory
from engine.runs.in_flight import InFlight, Progress, Submits
from engine.runs.journal import Journal, counts
from engine.runs.manifest import Session, iso_utc
from engine.runs.media_files import MediaFiles
from engine.runs.pending_rows import PendingRows
from engine.runs.results import materialise
from engine.runs.statistics import write_statistics
from engine.runs.stop_signal import StopSignal
from engine.runs.table import write_table
from engine.schemas import RunSpec
from engine.workloads.open import Source, open_source

COMMIT_ROWS = 256
"""Records that make a group commit due before `output.commit_s` is over."""
VIRTUAL_COMMIT_ROWS = 1024
"""The same in virtual time, where no caller waits for a commit."""
OPEN_LOOP_ROWS = 40_000
"""Rows in flight at most when rows come at their own times; one that waits takes about 25 kB of memory."""

log = logging.getLogger("engine.runs")


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run."""

    path: Path
    rows: int
    ok: int
    failed: int
    outcomes: dict[str, int]
    wall_s: float
    """In virtual time, virtual seconds."""
    first_errors: list[str] = field(default_factory=list)
    """`custom_id: kind: message` of the first failed rows that differ in it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    real_s: float | None = None
    """In virtual time: the real seconds."""

    @property
    def exit_code(self) -> int:
        """0: every row was answered; 3: some failed, and are in dead.jsonl."""
        return 3 if self.failed else 0


def window_of(spec: RunSpec) -> int:
    """Returns `output.window`, or its default: the rows that the queue lets through, as many again that wait there so
    that priorities have rows to order, and one group commit of rows that wait to become durable. A queue that rejects
    requests never gets more rows than it has room for. Synthetic traffic is not held back. For batch jobs the default
    fills as many jobs as are allowed."""
    if spec.output.window is not None:
        return spec.output.window
    queue, workload = spec.policy.queue, spec.workload
    if spec.policy.batch.strategy == "provider":
        return spec.policy.batch.job.max_rows * spec.policy.batch.job.max_jobs + COMMIT_ROWS
    window = 2 * queue.concurrency + COMMIT_ROWS
    if workload.kind == "synthetic":
        return max(window, workload.users + COMMIT_ROWS) if workload.arrivals == "closed" else OPEN_LOOP_ROWS
    if queue.enabled and queue.on_full == "reject":
        window = min(window, queue.concurrency + queue.size)
    return window


async def execute(
    engine: Submits,
    spec: RunSpec,
    run: RunDirectory,
    *,
    progress: Progress | None = None,
    stop: StopSignal | None = None,
    source: Source | None = None,
) -> Summary:
    """Answers every row that is not recorded yet, then makes the results and the report.

    Rows are read in order, `window_of(spec)` at most at a time; priorities count among those. `source` is opened from
    the spec when it is not given. Raises Interrupted (stopped; resumable), Stalled (nothing was answered for too long;
    resumable), OverLimit (`output.max_cost_usd` is spent; resumable), OutputError (the disk or the journal; resumable),
    SetupError (the engine or the source can't continue; resumable).
    """
    source = source or open_source(spec.workload, spec.model.tasks, spec.seed, spec.prompt)
    execution = _Execution(engine, spec, run, source, progress, stop or StopSignal())
    try:
        return await execution.execute()
    except CantWrite as error:
        execution.note_end("failed", str(error))
        advice = f"continue with:\n  {run.resume_command}" if execution.begun else "nothing was begun: try again then"
        raise OutputError(f"{error}; {advice}") from error
    except EngineError as error:
        status = {Interrupted: "interrupted", Stalled: "stalled", OverLimit: "spent"}.get(type(error), "failed")
        execution.note_end(status, str(error))
        if type(error) is SetupError and execution.begun:
            raise SetupError(f"{error}, then continue with:\n  {run.resume_command}") from error
        raise
    except asyncio.CancelledError:
        execution.note_end("interrupted", "cancelled")
        raise
    except Exception as error:  # a defect: recorded, to tell the run from a killed one, and raised again
        execution.note_end("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        if progress is not None:
            progress.close()


class _Execution:
    """One session of a run."""

    def __init__(
        self,
        engine: Submits,
        spec: RunSpec,
        run: RunDirectory,
        source: Source,
        progress: Progress | None,
        stop: StopSignal,
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._run = run
        self._source = source
        self._progress = progress
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._virtual = isinstance(self._loop, VirtualTimeLoop)
        self._window = window_of(spec)
        self._started = self._loop.time()
        self._real_started = time.monotonic()
        self._feed: Arrivals | None = None
        self._spending = CostLimit(spec.output.max_cost_usd)
        self._stalled = False
        self._held: list[str] = []
        """The keys and limits that calls waited for when the run was stopped."""
        self._over = False
        """True: the cost limit stopped the run."""
        self.begun = run.resumed
        """True: there is something to resume."""

    async def execute(self) -> Summary:
        run, commit_rows = self._run, VIRTUAL_COMMIT_ROWS if self._virtual else COMMIT_ROWS
        batch = min(commit_rows, max(1, self._window // 2))
        journal = Journal(run.journal, commit_s=self._spec.output.commit_s, batch=batch, threaded=not self._virtual)
        jobs = self._open_jobs() if self._spec.policy.batch.strategy == "provider" else None
        # Faults of a simulated provider are intended.
        alike = self._spec.output.max_alike if self._spec.provider.kind != "simulated" else None
        serving = InFlight(
            self._engine,
            journal,
            run.path.name,
            self._window,
            self._progress,
            self._virtual,
            self._spending,
            jobs,
            alike,
        )
        try:
            await self._begin(self._window + (batch if self._virtual else 0) + (alike or 0))
            if run.resumed:
                self._spending.read(run.journal)
                if self._spending.reached:
                    self._over = True
                    raise self._stopped(serving, None)
            if jobs is not None:
                jobs.start(serving.touch)
            rest = PendingRows(self._source, run.journal)
            feed = self._feed = Arrivals(self._source, serving, rest, self._virtual, self._say)
            complete = await self._serve_all(feed, serving, jobs)
        finally:
            await serving.cancel()
            if jobs is not None:
                await jobs.aclose(0.0 if self._stop.immediate else self._spec.output.drain_s)
            await journal.aclose()
        if feed.exhausted:
            rest.refuse_shorter()
        if not complete:
            raise self._stopped(serving, jobs)
        return self._finish(rest.rows) if self._virtual else await asyncio.to_thread(self._finish, rest.rows)

    def _open_jobs(self) -> Jobs:
        """Returns the access to the provider's batch API, with the jobs of earlier sessions. Raises OutputError."""
        assert isinstance(self._engine, Engine), "batch jobs need a whole engine"
        return Jobs(self._engine, Ledger(self._run.journal, os.urandom(6).hex()), self._say)

    def note_end(self, status: str, reason: str) -> None:
        """Writes how a session ended without finishing. A full disk keeps the old status, which is `running` and, the
        lock being free, reads as crashed; the run can be resumed from that as well."""
        manifest = self._run.manifest
        manifest.status, manifest.reason = status, reason
        log.error("%s: %s", status, reason)
        with contextlib.suppress(OutputError):  # a journal that can't be read; the end is written all the same
            manifest.ok, manifest.failed = counts(self._run.journal)
        try:
            self._end_session()
            self._run.write_manifest()
        except OutputError as error:
            log.error("the status could not be written: %s", error)

    # -- the beginning ------------------------------------------------------------------------------------------

    async def _begin(self, window: int) -> None:
        """Records that a session has begun, and reports how many calls a resumed one may repeat."""
        run, manifest = self._run, self._run.manifest
        ok, failed = counts(run.journal)
        count = self._source.count
        total = count() if self._virtual else await asyncio.to_thread(count)
        may_repeat = 0
        if run.resumed:
            left = manifest.window if total is None else min(manifest.window, max(0, total - ok - failed))
            clean = manifest.status == "finished"
            # Rows in batch jobs are looked up there, not sent again.
            may_repeat = 0 if clean else max(0, left - held_rows(run.journal))
            self._close_killed_session()
        manifest.status, manifest.reason, manifest.finished = "running", None, None
        manifest.time = "virtual" if self._virtual else "real"
        manifest.window, manifest.rows = window, total
        manifest.sessions.append(
            Session(started=iso_utc(time.time()), recorded_before=ok + failed, may_repeat=may_repeat)
        )
        try:
            run.write_manifest()
        except OutputError:
            manifest.sessions.pop()
            raise
        self.begun = True
        if self._progress is not None:
            self._progress.start(total, ok + failed)
        if run.resumed:
            text = f"resuming {run.path}: {ok + failed} rows are recorded; at most {may_repeat} calls may be repeated"
            log.info(text)
            self._say(text)
        log.info(
            "workload %s, %s rows, window %d, %s time", self._source.describe(), total, self._window, manifest.time
        )

    def _close_killed_session(self) -> None:
        """Records the end of a killed session: the journal's last change is the nearest known time."""
        sessions = self._run.manifest.sessions
        if not sessions or sessions[-1].wall_s is not None:
            return
        ended = max(file.stat().st_mtime for file in self._run.path.glob("journal.sqlite*"))
        began = (self._run.path / "manifest.json").stat().st_mtime
        sessions[-1].wall_s = took_s = round(max(0.0, ended - began), 3)
        if self._run.manifest.time == "virtual":
            sessions[-1].wall_s, sessions[-1].real_s = 0.0, took_s

    # -- the middle ---------------------------------------------------------------------------------------------

    async def _serve_all(self, feed: Arrivals, serving: InFlight, jobs: Jobs | None) -> bool:
        """Returns True if every row has its outcome; False if the run was stopped or has stalled. Raises the error that
        ended the run."""
        earlier_s = sum(session.wall_s or 0.0 for session in self._run.manifest.sessions)
        everything = asyncio.create_task(_read_and_wait(feed, serving, earlier_s))
        drain = asyncio.create_task(self._stop.wait_drain())
        now = asyncio.create_task(self._stop.wait_now())
        watched = [drain]
        if self._spec.output.stalled_s is not None:
            watched.append(asyncio.create_task(serving.wait_stalled(self._spec.output.stalled_s)))
        watched.append(asyncio.create_task(self._spending.wait_reached()))
        resources: Resources | None = getattr(self._engine, "resources", None)
        telling: list[asyncio.Task[None]] = []
        if resources is not None and not self._virtual:
            telling.append(asyncio.create_task(stall_notices.tell(serving, resources, self._say)))
        try:
            await asyncio.wait({everything, serving.failed, *watched}, return_when=asyncio.FIRST_COMPLETED)
            if not everything.done() and not serving.failed.done():
                self._over = self._spending.reached and not drain.done()
                self._stalled = not drain.done() and not self._over
                self._held = [] if resources is None else stall_notices.holding(resources)
                self._say_stopping()
                if self._stalled or self._over:
                    self._stop.drain()  # so that the next Ctrl-C stops at once
                serving.stopping = True
                self._engine.drain()
                if jobs is not None:
                    jobs.drain()
                if not feed.exhausted:
                    await _cancel(everything)
                    everything = asyncio.create_task(serving.wait_idle())
                await asyncio.wait(
                    {everything, now, serving.failed},
                    timeout=self._spec.output.drain_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if serving.failed.done():
                serving.failed.result()
            if everything.done():
                everything.result()
            return feed.exhausted and everything.done() and not serving.dropped
        finally:
            for task in (everything, now, *watched, *telling):
                await _cancel(task)

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.note(text)

    def _say_stopping(self) -> None:
        drain_s = self._spec.output.drain_s
        if self._stalled or self._over:
            why = "stalled" if self._stalled else self._spending.reason
            self._say(f"{why}; calls in flight may finish for {drain_s:g} s; Ctrl-C stops now")
        else:
            self._say(f"stopping: calls in flight may finish for {drain_s:g} s; Ctrl-C again stops now")

    def _stopped(self, serving: InFlight, jobs: Jobs | None) -> EngineError:
        done = f"{sum(counts(self._run.journal))} rows are recorded"
        if jobs is not None and jobs.left:
            names = ", ".join(job.provider_id or job.tag for job in jobs.left)
            done += (
                f"; batch jobs continue at the provider ({names}), and a resume takes them up; to end them: "
                f"python -m engine runs cancel {self._run.path}"
            )
        command = f"Continue with:\n  {self._run.resume_command}"
        if self._over:
            return OverLimit(f"{self._spending.reason}; {done}. {command} output.max_cost_usd=…")
        if not self._stalled:
            return Interrupted(f"stopped; {done}. {command}")
        said = "; ".join(f"{target}: {text}" if target else text for target, text in serving.last_errors.items())
        held = f"Waiting: {'; '.join(self._held)}. " if self._held else ""
        return Stalled(
            f"no row made progress for {self._spec.output.stalled_s:g} s (output.stalled_s); {done}. {held}"
            f"The last errors: {said or 'none, the calls did not end'}\n{command}"
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def _end_session(self) -> None:
        manifest = self._run.manifest
        if manifest.sessions:
            session = manifest.sessions[-1]
            began = self._feed.began_at if self._feed is not None and self._virtual else None
            session.finished = iso_utc(time.time())
            session.wall_s = round(self._loop.time() - (self._started if began is None else began), 3)
            if self._virtual:
                session.real_s = round(time.monotonic() - self._real_started, 3)
            if self._feed is not None:
                session.held_back, session.held_back_s = self._feed.held_back, round(self._feed.held_back_s, 3)
        if self._virtual and self._feed is not None and self._feed.began_at is not None:
            # The clock was moved to where earlier sessions had stopped, also one that was killed.
            manifest.wall_s = round(self._loop.time() - self._started, 3)
        else:
            total_s = round(sum(session.wall_s or 0.0 for session in manifest.sessions), 3)
            manifest.wall_s = max(manifest.wall_s, total_s)

    def _write_table(self) -> None:
        """Writes `output.table`; what goes wrong there never stops the results."""
        kind = self._spec.output.table
        if kind is None:
            return
        try:
            write_table(self._run, self._spec, kind)
        except Exception as error:  # results.jsonl is there; a column of an odd type must not fail the run
            self._say(f"output.table: the table can't be written: {type(error).__name__}: {error}")

    def _finish(self, rows: int) -> Summary:
        """Writes results, metrics, report, and last the status."""
        run, manifest = self._run, self._run.manifest
        self._end_session()
        materialise(run, rows, MediaFiles(run.path) if self._spec.output.media == "files" else None)
        self._write_table()
        manifest.ok, manifest.failed = counts(run.journal)
        manifest.rows, manifest.finished, manifest.status = rows, iso_utc(time.time()), "finished"
        manifest.record_software()
        resources = getattr(self._engine, "resources", None)
        timed = self._feed is not None and self._feed.timed
        told = write_statistics(run, self._source, resources, timed=timed, warn=self._say)
        if self._virtual:
            manifest.sessions[-1].real_s = round(time.monotonic() - self._real_started, 3)
        run.write_manifest()
        log.info("finished: %d ok, %d failed in %.3f s", manifest.ok, manifest.failed, manifest.wall_s)
        return Summary(
            path=run.path,
            rows=rows,
            ok=manifest.ok,
            failed=manifest.failed,
            outcomes=told.metrics.get("outcomes", {}),
            wall_s=manifest.wall_s,
            first_errors=told.first_errors,
            metrics=told.metrics,
            real_s=sum(session.real_s or 0.0 for session in manifest.sessions) if self._virtual else None,
        )


async def _read_and_wait(feed: Arrivals, serving: InFlight, earlier_s: float) -> None:
    await feed.run(earlier_s)
    await serving.wait_idle()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
