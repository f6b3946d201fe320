"""The rows in flight: from their start, through the engine, to their durable record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from engine.core.errors import InferenceError, Malformed, OutputError, SetupError
from engine.core.request import EngineRecord, Request, Result
from engine.runs.cost_limit import CostLimit
from engine.runs.first_failures import FirstFailures
from engine.runs.journal import Journal
from engine.runs.results import payload
from engine.workloads.open import Row

OWN_FAULT = frozenset({"invalid_request", "too_long", "content_filtered"})
"""Failures that are the row's own: it waits for no other answer."""

_NO_FAILURE = frozenset({"ok", "running", "cancelled"})

log = logging.getLogger("engine.runs")


class Submits(Protocol):
    """The answering side: an Engine, or anything with its `submit` and `drain`. Where it has `observers`, a list of
    functions of a request and its result, those that were cancelled tell what they had met, too."""

    async def submit(self, request: Request) -> Result: ...
    def drain(self) -> None: ...


class Progress(Protocol):
    """The receiver of results. `add` is called for durable results only."""

    def start(self, total: int | None, done: int) -> None: ...
    def add(self, result: Result) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Answers(Protocol):
    """Another way to answer rows than to submit them one by one: batch jobs."""

    async def answer(self, row: Row) -> Result:
        """The result of a row that has a request. Raises what the run can't continue after, and CancelledError for a
        row that a resume is for."""
        ...

    def flush(self) -> None:
        """No further row comes."""
        ...


class InFlight:
    """Starts rows, at most `window` at a time, and records the outcome of them.

    With `virtual` a row makes room for the next one when it is answered; else when its record is durable, so that
    `window` bounds what a crash can lose.
    """

    def __init__(
        self,
        engine: Submits,
        journal: Journal,
        run: str,
        window: int,
        progress: Progress | None,
        virtual: bool,
        spending: CostLimit,
        answers: Answers | None = None,
        max_alike: int | None = None,
    ) -> None:
        """`max_alike` is `output.max_alike`."""
        self.tasks: dict[int, asyncio.Task[None]] = {}
        """By the index of their row."""
        self.stopping = False
        """Rows that are cancelled from now on are left for a resume."""
        self.dropped = False
        """A row was turned away before it had an outcome."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends, with the error, when the run can't continue."""
        self.last_errors: dict[str, str] = {}
        """Target → what its last failed call said."""
        self._engine = engine
        self._journal = journal
        self._run = run
        self._window = window
        self._progress = progress
        self._virtual = virtual
        self._spending = spending
        self._answers = answers
        self._first = FirstFailures(max_alike)
        self._loop = asyncio.get_running_loop()
        self.moved_at = self._idle_since = self._loop.time()
        """The time of a row's last progress, moved on by the time in which none was in flight."""
        self._observers: list[Callable[[Request | None, Result], None]] = getattr(engine, "observers", [])
        self._observers.append(self._observe)
        self._open = 0
        self._freed = asyncio.Event()

    @property
    def room(self) -> int:
        """Returns how many more rows may start."""
        return self._window - self._open

    async def wait_room(self) -> None:
        while self._open >= self._window:
            await self._wait()

    async def wait_idle(self) -> None:
        """Until every row that was started is recorded or dropped; no further one comes."""
        if self._answers is not None:
            self._answers.flush()
        while True:
            while self._open:
                await self._wait()
            if self.stopping:
                self.dropped = self.dropped or self._first.holds
                return
            if not self._first.release():
                return

    def start(self, row: Row, digest: int) -> asyncio.Task[None]:
        """Starts a row; the task ends when it has its outcome, which is then on its way to the journal."""
        if not self.tasks:
            self.moved_at += self._loop.time() - self._idle_since
        self._open += 1
        task = self._loop.create_task(self._serve(row, digest))
        self.tasks[row.index] = task
        return task

    def touch(self) -> None:
        """Something continued, although no row has its outcome yet."""
        self.moved_at = self._loop.time()

    async def wait_stalled(self, limit_s: float) -> None:
        """Until no row has got anywhere for `limit_s` seconds although rows are in flight."""
        while True:
            rest_s = self.moved_at + limit_s - self._loop.time()
            if rest_s <= 0 and self.tasks:
                return
            await asyncio.sleep(rest_s if rest_s > 0 else limit_s)

    async def cancel(self) -> None:
        """Stops what is in flight and waits for it."""
        self.stopping = True
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        self._observers.remove(self._observe)
        if self.failed.done():
            self.failed.exception()  # seen, also when another error is on its way
        else:
            self.failed.cancel()

    async def _wait(self) -> None:
        self._freed.clear()
        await self._freed.wait()

    async def _serve(self, row: Row, digest: int) -> None:
        try:
            result, content = await self._answer(row)
        except asyncio.CancelledError:
            self.dropped = True
            self._close()
            raise
        except Exception as error:  # the run can't continue after it: `failed` hands it on
            self._close()
            self._fail(error)
            return
        finally:
            del self.tasks[row.index]
            if not self.tasks:
                self._idle_since = self._loop.time()

        def durable(failure: OutputError | None) -> None:
            if not self._virtual:
                self._close()
            if failure is not None:
                self._fail(failure)
                return
            if result.error is not None:
                log.warning("row %d (%s): %s", row.index + 1, row.id, result.error)
            if self._progress is not None:
                self._progress.add(result)

        def record() -> None:
            self._journal.append(row.index, row.id, result.error is None, digest, content, durable)

        def record_late() -> None:
            self._open += not self._virtual
            record()

        if self._virtual:
            self._close()
        if not self._first.hold(result, record_late):
            record()
            return
        if not self._virtual:
            self._close()  # a row that is held back makes room: the next ones show if it is alone in failing
        if self._first.reached:
            self._fail(SetupError(self._first.reason))

    async def _answer(self, row: Row) -> tuple[Result, bytes]:
        """The row's result, and what the journal keeps of it. Raises CancelledError for a row that a resume is for."""
        if row.request is None:
            result = Result(row.id, error=row.error)
        else:
            try:
                if self._answers is not None:
                    result = await self._answers.answer(row)
                else:
                    result = await self._engine.submit(row.request)
            except InferenceError as error:
                record = EngineRecord(priority=row.request.priority, metadata=row.request.metadata)
                result = Result(row.id, error=error, engine=record)
        result.engine.warnings += row.warnings
        self._spending.add(result.engine.attempts)
        failure = result.error
        if failure is None or failure.kind in OWN_FAULT:
            self.moved_at = self._loop.time()
        if failure is not None:
            self._observe(row.request, result)
            if failure.parks_key and (reason := getattr(self._engine, "locked_out", None)):
                raise SetupError(
                    f"no key is left to call anything with: {reason.rstrip('.')}. Next: set a key that works"
                )
            if self.stopping and failure.kind == "cancelled":
                raise asyncio.CancelledError
        try:
            content = payload(self._run, row, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as problem:  # this row's, not the run's
            malformed = Malformed(f"the reply can't be written as JSON: {problem}")
            result = Result(row.id, error=malformed, engine=result.engine)
            content = payload(self._run, row, result)
        return result, content

    def _observe(self, request: Request | None, result: Result) -> None:
        """Keeps the last message of each target, for reports of a run without progress."""
        if result.error is None or result.error.kind in OWN_FAULT:
            return
        failed = [
            attempt for attempt in result.engine.attempts if attempt.outcome not in ("ok", "running", "cancelled")
        ]
        if failed:
            last = failed[-1]
            self.last_errors[last.target] = f"{last.outcome}: {last.message or result.error.message}"
        elif result.error.kind != "cancelled":
            self.last_errors.setdefault(result.engine.target or "", f"{result.error.kind}: {result.error.message}")

    def _close(self) -> None:
        self._open -= 1
        self._freed.set()

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
