"""Executes a run: rows in, durable results out, at most a window of rows between the two.

Exactly-once record, at-least-once call: a row is recorded once, whatever happens; a call whose record was not yet
durable when the process died is made again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from engine.errors import EngineError, InferenceError, Interrupted, Malformed, OutputError
from engine.request import EngineRecord, Request, Result
from engine.runs.atomic import write_atomic
from engine.runs.directory import RunDirectory
from engine.runs.journal import Journal, counts, recorded
from engine.runs.manifest import Session, iso_utc
from engine.runs.reader import Reader
from engine.runs.report import Findings, write_report
from engine.runs.results import materialise, payload, row_digest
from engine.runs.stop import StopSignal
from engine.workloads import Row, Source, open_source
from schemas import RunSpec

COMMIT_ROWS = 256
"""Records that make a group commit due before `output.commit_s` is over."""

log = logging.getLogger("engine.runs")


class Submits(Protocol):
    """What answers: an Engine, or anything with its `submit` and `drain`."""

    async def submit(self, request: Request) -> Result: ...
    def drain(self) -> None: ...


class Progress(Protocol):
    """Who is told. `add` is called for durable results only."""

    def start(self, total: int | None, done: int) -> None: ...
    def add(self, result: Result) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended."""

    path: Path
    rows: int
    ok: int
    failed: int
    outcomes: dict[str, int]
    wall_s: float
    first_errors: list[str] = field(default_factory=list)
    """`custom_id: kind: message` of the first failed rows."""
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: every row was answered; 3: some failed, and are in dead.jsonl."""
        return 3 if self.failed else 0


def window_of(spec: RunSpec) -> int:
    """`output.window`, or as many rows as the queue lets through, as many again that wait their turn there so that
    priorities have something to choose from, and one group commit of rows that wait to become durable. A queue that
    turns requests away is never given more rows than it has room for."""
    if spec.output.window is not None:
        return spec.output.window
    queue = spec.policy.queue
    window = 2 * queue.concurrency + COMMIT_ROWS
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
    the spec when it is not given. Raises Interrupted (stopped; resumable), OutputError (the disk or the journal;
    resumable), SetupError (the engine or the source can't go on; resumable).
    """
    source = source or open_source(spec.workload, spec.model.tasks)
    execution = _Execution(engine, spec, run, source, progress, stop or StopSignal())
    try:
        return await execution.execute()
    except EngineError as error:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
        _note_end(run, status, str(error), execution.wall_s())
        raise
    except asyncio.CancelledError:
        _note_end(run, "interrupted", "cancelled", execution.wall_s())
        raise
    except Exception as error:  # a defect: recorded, so that the run can be told from a killed one, and passed on
        _note_end(run, "failed", f"{type(error).__name__}: {error}", execution.wall_s())
        raise
    finally:
        if progress is not None:
            progress.close()


def _note_end(run: RunDirectory, status: str, reason: str, wall_s: float) -> None:
    """Writes how a session ended without finishing. A disk that is full keeps the old status, which says `running`
    and, the lock being free, reads as crashed; the run can be resumed from that as well."""
    manifest = run.manifest
    manifest.status, manifest.reason = status, reason
    log.error("%s: %s", status, reason)
    try:
        manifest.ok, manifest.failed = counts(run.journal)
        _end_session(run, wall_s)
        run.write_manifest()
    except OutputError as error:
        log.error("the status could not be written: %s", error)


def _end_session(run: RunDirectory, wall_s: float) -> None:
    manifest = run.manifest
    if manifest.sessions:
        manifest.sessions[-1].finished = iso_utc(time.time())
        manifest.sessions[-1].wall_s = round(wall_s, 3)
    manifest.wall_s = round(sum(session.wall_s or 0.0 for session in manifest.sessions), 3)


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
        self._window = window_of(spec)
        self._started = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: Iterator[tuple[int, int]] = iter(())
        self._next_done: tuple[int, int] | None = None
        self._rows = 0
        self._exhausted = False
        self._dropped = False
        """A row was turned away before it was called."""
        self._freed = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wall_s(self) -> float:
        return time.monotonic() - self._started

    async def execute(self) -> Summary:
        run = self._run
        batch = min(COMMIT_ROWS, max(1, self._window // 2))
        self._journal = Journal(run.journal, commit_s=self._spec.output.commit_s, batch=batch)
        try:
            await self._begin()
            await self._serve_all()
        finally:
            await self._cancel_tasks()
            await self._journal.aclose()
        if not self._exhausted or self._next_done is not None:
            self._refuse_shorter()
            recorded_rows = sum(counts(run.journal))
            raise Interrupted(f"stopped; {recorded_rows} rows are recorded. Continue with:\n  {run.resume_command}")
        return await asyncio.to_thread(self._finish)

    # -- the beginning ------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Writes down that a session has begun, and says what a resumed one may repeat."""
        run, manifest = self._run, self._run.manifest
        ok, failed = counts(run.journal)
        total = await asyncio.to_thread(self._source.count)
        may_repeat = 0
        if run.resumed:
            left = manifest.window if total is None else min(manifest.window, max(0, total - ok - failed))
            clean = manifest.status == "finished"
            may_repeat = 0 if clean else left
            self._close_killed_session()
        manifest.status, manifest.reason, manifest.finished = "running", None, None
        manifest.window, manifest.rows = self._window, total
        manifest.sessions.append(
            Session(started=iso_utc(time.time()), recorded_before=ok + failed, may_repeat=may_repeat)
        )
        run.write_manifest()
        if self._progress is not None:
            self._progress.start(total, ok + failed)
        if run.resumed:
            text = f"resuming {run.path}: {ok + failed} rows are recorded; at most {may_repeat} calls may be repeated"
            log.info(text)
            if self._progress is not None:
                self._progress.note(text)
        self._done = recorded(run.journal)
        self._next_done = next(self._done, None)
        log.info("workload %s, %s rows, window %d", self._source.describe(), total, self._window)

    def _close_killed_session(self) -> None:
        """A killed session could not write its end; the journal's last change is the nearest to it that is known."""
        sessions = self._run.manifest.sessions
        if sessions and sessions[-1].wall_s is None:
            ended = max(file.stat().st_mtime for file in self._run.path.glob("journal.sqlite*"))
            began = (self._run.path / "manifest.json").stat().st_mtime
            sessions[-1].wall_s = round(max(0.0, ended - began), 3)

    # -- the middle ---------------------------------------------------------------------------------------------

    async def _serve_all(self) -> None:
        """Returns when every row is durable, or when the stop signal has had its way. Raises what broke the run."""
        everything = asyncio.create_task(self._read_and_wait())
        drain = asyncio.create_task(self._stop.wait_drain())
        now = asyncio.create_task(self._stop.wait_now())
        try:
            await asyncio.wait({everything, drain, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if not everything.done() and not self._failed.done():
                if self._progress is not None:
                    self._progress.note(
                        f"stopping: calls under way may finish for {self._spec.output.drain_s:g} s; "
                        "Ctrl-C again stops now"
                    )
                self._engine.drain()
                if not self._exhausted:
                    await _cancel(everything)
                    everything = asyncio.create_task(self._idle())
                await asyncio.wait(
                    {everything, now, self._failed},
                    timeout=self._spec.output.drain_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if self._failed.done():
                self._failed.result()
            if everything.done():
                everything.result()
            if self._dropped or not everything.done():
                self._exhausted = False
        finally:
            for task in (everything, drain, now):
                await _cancel(task)

    async def _read_and_wait(self) -> None:
        reader = Reader(self._source)
        try:
            while True:
                while len(self._tasks) >= self._window:
                    self._freed.clear()
                    await self._freed.wait()
                rows = await reader.read(self._window - len(self._tasks))
                if not rows:
                    break
                for row in rows:
                    self._take(row)
        finally:
            reader.close()
        self._exhausted = True
        await self._idle()

    async def _idle(self) -> None:
        while self._tasks:
            self._freed.clear()
            await self._freed.wait()

    def _take(self, row: Row) -> None:
        """Starts a row, or passes over one that is recorded; both come in order of their index."""
        self._rows += 1
        digest = row_digest(row)
        if self._next_done is not None and self._next_done[0] == row.index:
            if self._next_done[1] != digest:
                raise OutputError(
                    f"output.resume: row {row.index + 1} ({row.id}) of {self._source.name} is not the one that was "
                    "recorded; put the old workload back, or start a new run"
                )
            self._next_done = next(self._done, None)
            return
        task = asyncio.create_task(self._serve(row, digest))
        self._tasks.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._freed.set()
        self._dropped = self._dropped or task.cancelled()
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _serve(self, row: Row, digest: int) -> None:
        """One row, from its request to its durable record; only then is it shown."""
        if row.request is None:
            result = Result(row.id, error=row.error)
        else:
            try:
                result = await self._engine.submit(row.request)
            except InferenceError as error:
                record = EngineRecord(priority=row.request.priority, metadata=row.request.metadata)
                result = Result(row.id, error=error, engine=record)
        try:
            content = payload(self._run.path.name, row, result)
        except (TypeError, ValueError) as error:  # such as half of a surrogate pair: this row's problem, not the run's
            malformed = Malformed(f"the reply can't be written as JSON: {error}")
            result = Result(row.id, error=malformed, engine=result.engine)
            content = payload(self._run.path.name, row, result)
        await self._journal.append(row.index, row.id, result.ok, digest, content)
        if not result.ok:
            log.warning("row %d (%s): %s", row.index + 1, row.id, result.error)
        if self._progress is not None:
            self._progress.add(result)

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._failed.done():
            self._failed.exception()  # seen, also when another error is on its way
        else:
            self._failed.cancel()

    # -- the end ------------------------------------------------------------------------------------------------

    def _refuse_shorter(self) -> None:
        """Raises OutputError when rows are recorded that the workload no longer has."""
        if self._exhausted and self._next_done is not None:
            raise OutputError(
                f"output.resume: {self._source.name} has only {self._rows} rows now, but row "
                f"{self._next_done[0] + 1} is recorded; put the old workload back, or start a new run"
            )

    def _finish(self) -> Summary:
        """Results, metrics, report, and last the status."""
        run, manifest = self._run, self._run.manifest
        _end_session(run, self.wall_s())
        findings = Findings()
        materialise(run, self._rows, findings.see)
        manifest.rows, manifest.ok, manifest.failed = self._rows, findings.metrics.total.ok, findings.failed
        manifest.finished = iso_utc(time.time())
        manifest.record_software()
        metrics = findings.metrics.summary(manifest.wall_s)
        write_atomic(run.metrics, msgspec.json.format(msgspec.json.encode(metrics), indent=2) + b"\n")
        manifest.status = "finished"
        write_report(run, findings, self._source)
        run.write_manifest()
        log.info("finished: %d ok, %d failed in %.3f s", manifest.ok, manifest.failed, manifest.wall_s)
        return Summary(
            path=run.path,
            rows=self._rows,
            ok=manifest.ok,
            failed=manifest.failed,
            outcomes=metrics["outcomes"],
            wall_s=manifest.wall_s,
            first_errors=findings.first_errors(),
            metrics=metrics,
        )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
