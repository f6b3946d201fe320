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
"""Failures that are the row's own: no later row waits for a request that can't be answered."""

_NO_FAILURE = frozenset({"ok", "running", "cancelled"})

log = logging.getLogger("engine.runs")


class Submits(Protocol):
    """Answers requests: an Engine, or any object with its `submit` and `drain`. If it has `observers`, a list of
    functions of a request and its result, they also get the errors of cancelled requests."""

    async def submit(self, request: Request) -> Result: ...
    def drain(self) -> None: ...


class Progress(Protocol):
    """Receives a run's progress. `add` is called for durable results only."""

    def start(self, total: int | None, done: int) -> None: ...
    def add(self, result: Result) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Answers(Protocol):
    """Another way to answer rows than to submit them one by one: batch jobs."""

    async def answer(self, row: Row) -> Result:
        """Returns the result of a row that has a request. Raises an error that ends the run, and CancelledError for a
        row left for a resume."""
        ...

    def flush(self) -> None:
        """Tells it that no further row comes."""
        ...


class InFlight:
    """Starts rows, at most `window` at a time, and records their outcomes.

    With `virtual` a row makes room for the next one when it is answered; otherwise when its record is durable, so that
    `window` bounds the loss in a crash.
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
        """Row index → its task."""
        self.stopping = False
        """True: rows cancelled from now on are left for a resume."""
        self.dropped = False
        """True: a row was turned away before it had an outcome."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the error that ends the run."""
        self.last_errors: dict[str, str] = {}
        """Target → the error of its last failed call."""
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
        """Time of the last progress of a row, moved on by the time without rows in flight."""
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
        """Waits until every started row is recorded or dropped; no further row comes."""
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
        """Starts a row; the task ends when the row has its outcome, which is then on its way to the journal."""
        if not self.tasks:
            self.moved_at += self._loop.time() - self._idle_since
        self._open += 1
        task = self._loop.create_task(self._serve(row, digest))
        self.tasks[row.index] = task
        return task

    def touch(self) -> None:
        """Notes progress, although no row has its outcome yet."""
        self.moved_at = self._loop.time()

    async def wait_stalled(self, limit_s: float) -> None:
        """Waits until no row has made progress for `limit_s` seconds although rows are in flight."""
        while True:
            rest_s = self.moved_at + limit_s - self._loop.time()
            if rest_s <= 0 and self.tasks:
                return
            await asyncio.sleep(rest_s if rest_s > 0 else limit_s)

    async def cancel(self) -> None:
        """Cancels the rows in flight and waits for them."""
        self.stopping = True
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        self._observers.remove(self._observe)
        if self.failed.done():
            self.failed.exception()  # marks it as retrieved, also when another error is raised
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
        except Exception as error:  # ends the run: `failed` carries it to the caller
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
            self._close()  # a row that is held back makes room: the next rows show whether it fails alone
        if self._first.reached:
            self._fail(SetupError(self._first.reason))

    async def _answer(self, row: Row) -> tuple[Result, bytes]:
        """Returns the row's result and its journal payload. Raises CancelledError for a row left for a resume."""
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
        """Keeps the last error of each target, which explains a run without progress."""
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
