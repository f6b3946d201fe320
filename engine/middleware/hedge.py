"""A second call for a request whose first one is slow."""

from __future__ import annotations

import asyncio
from random import Random

from engine.core.clock import Clock
from engine.core.errors import CircuitOpen, InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Attempt, Context, Request, Result
from engine.middleware.hedge_latency import Kind, Pace
from engine.middleware.layer_context import LayerContext
from engine.middleware.retry_budget import RetryBudget, budget_of
from engine.schemas.policy import HedgeSpec

REQUESTS_OWN = frozenset({"invalid_request", "too_long", "content_filtered"})
"""Failures that every other call of the same request would share: they end the wait."""
_NOT_CALLED = frozenset({"circuit_open", "queue_full"})
"""Failures without a call to the provider; the failure of a real call says more."""


class Hedge(Middleware):
    """Starts another call when one is slow; the first success counts.

    Semantics: gRPC proposal A6, "Hedging policy". The next call starts when the latest one has taken the delay, not
    counting its wait in the queue, or at once after a temporary failure; never before a provider's hint is over, nor
    beyond the deadline, `park_after_s`, the request's attempts and the target's budget. When one call succeeds (a
    stream: has its first chunk) the others are cancelled, and the request waits until they have released their slots
    and permits. A failure that is the request's own ends everything, as in A6. Any other permanent failure (a key, a
    full queue) lets no further call begin: a call in flight may still succeed, otherwise that failure is the answer.

    A hedge that was started because a call was slow is paid from the budget for good, so that a target that is always
    slow is not called twice for everything; one that replaces a failure is paid back by success.
    """

    name = "hedge"
    why = "in the place of retry: outside the queue, so that each call waits, and is counted, like any other"
    wraps = {
        "queue": "each call needs a slot of its own",
        "route": "another call should go to another key and endpoint",
        "breaker": "each call must pass the breaker",
        "timeout": "the limit of a call begins with the call",
    }
    wrapped_by = {"fallback": "the next target is for failures that no further call here could fix"}

    def __init__(
        self,
        next: Stage,
        target: str,
        spec: HedgeSpec,
        pace: Pace,
        clock: Clock,
        rng: Random,
        budget: RetryBudget | None,
        max_attempts: int | None,
        park_after_s: float,
    ) -> None:
        self.next = next
        self.target = target
        self.spec = spec
        self.pace = pace
        self.clock = clock
        self.rng = rng
        self.budget = budget
        self.max_attempts = max_attempts
        self.park_after_s = park_after_s

    async def __call__(self, request: Request, context: Context) -> Result:
        return await _Race(self, request, context).run()


class _Call:
    """One of the calls. Times are in seconds of the monotonic clock."""

    __slots__ = ("before", "began", "begun", "context")

    def __init__(self, context: Context, now: float) -> None:
        self.context = context
        self.before = context.attempt
        """An earlier attempt, which does not belong to this call."""
        self.began = now
        self.begun = False
        """True once it has left the queue."""

    @property
    def attempt(self) -> Attempt | None:
        """Returns its attempt; None before it has one."""
        attempt = self.context.attempt
        return None if attempt is self.before else attempt

    @property
    def queued(self) -> bool:
        return not self.begun and self.context.queued_at is not None


class _Race:
    """The calls of one request. The first one runs in the request's own coroutine, each further one in a task."""

    def __init__(self, stage: Hedge, request: Request, context: Context) -> None:
        self.stage = stage
        self.request = request
        self.context = context
        self.kind: Kind = (request.task, context.stream)
        self.delay_s = stage.pace.delay_s(self.kind)
        self.left = stage.spec.max_hedges + 1 - context.tries.get(stage.target, 0)
        """Calls that may still begin."""
        self.calls: list[_Call] = []
        self.flying = 0
        self.winner: _Call | None = None
        self.result: Result | None = None
        self.failure: InferenceError | None = None
        self.first_failure: InferenceError | None = None
        self.crash: BaseException | None = None
        self.ended = False
        """True: the race is decided without a winner; calls in flight are useless."""
        self.decided_at = 0.0
        self.not_before = 0.0
        self.failed: _Call | None = None
        """The call that the next one replaces; None: the next one comes when the latest is slow."""
        self.paid = 0.0
        """Budget tokens for the call that replaces it."""
        self.refund = 0.0
        """Budget tokens of the replacements that have begun."""
        self._begin_deadline = context.on_first_attempt
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._scope: asyncio.Timeout | None = None
        self._news: asyncio.Future[None] | None = None

    async def run(self) -> Result:
        """Returns the result of the quickest call. Raises the failure that ended the race."""
        try:
            await self._run_first()
            if not self._decided():
                self._news = self._loop.create_future()
                await self._news
            await self._leave()
        except BaseException:
            await self._abandon()
            raise
        finally:
            if self._begin_deadline is not None:
                self.context.on_first_attempt = self._begin_deadline
        if self.winner is not None and self.result is not None:
            self._settle_success(self.winner)
            return self.result
        raise self._settle_failure()

    # -- calls --------------------------------------------------------------------------------------------------

    async def _run_first(self) -> None:
        """Makes the first call; ends it early when another one decides the race."""
        call = self._new_call(self.context)
        try:
            async with asyncio.timeout(None) as self._scope:
                await self._carry(call)
        except TimeoutError:
            if not self._over:
                raise
        finally:
            self._scope = None

    def _new_call(self, context: Context) -> _Call:
        call = _Call(context, self.stage.clock.monotonic())
        self.calls.append(call)
        self.flying += 1
        self.left -= 1

        def begin() -> None:
            context.on_first_attempt = None
            start, self._begin_deadline = self._begin_deadline, None
            if start is not None:
                start()
            call.begun, call.began = True, self.stage.clock.monotonic()
            self._arm(call)

        context.on_first_attempt = begin
        self._arm(call)
        return call

    async def _carry(self, call: _Call) -> None:
        failure = None
        try:
            result = await self.stage.next(self.request, call.context)
            if result.stream is not None:
                await result.stream.prime()
        except InferenceError as error:
            failure = error
        finally:
            self.flying -= 1
        if failure is not None:
            self._failed(call, failure)
        elif self._over:
            if result.stream is not None:
                await result.stream.aclose()
        else:
            self.winner, self.result = call, result
            self._decide(call)

    def _failed(self, call: _Call, error: InferenceError) -> None:
        if self._over:
            return
        self.first_failure = self.first_failure or error
        known = self.failure
        if known is None or known.retryable or known.kind in _NOT_CALLED:
            self.failure = error
        if error.kind in REQUESTS_OWN:
            self.failure, self.ended = error, True
            self._decide(call)
            return
        if not error.retryable or not self._plan_after(call, error):
            self._stop()
        self._tell()

    def _plan_after(self, call: _Call, error: InferenceError) -> bool:
        """Plans the call that replaces a failed one. Returns False if it can't."""
        stage, now = self.stage, self.stage.clock.monotonic()
        hint = None if error.elsewhere else error.retry_after_s
        if not self._may_begin() or (hint is not None and hint > stage.park_after_s):
            return False
        if hint is not None:
            # Many calls with the same hint must not return in the same instant.
            self.not_before = max(self.not_before, now + hint + stage.rng.uniform(0.0, 0.1 * hint + 0.01))
        if stage.budget is not None and self.failed is None:
            cost = stage.budget.cost(error)
            wait = stage.budget.reserve(cost)
            if wait is None:
                return False
            self.paid = cost
            self.not_before = max(self.not_before, now + wait)
        self.failed = call
        start = max(now, self.not_before)
        if self.context.deadline is not None and start >= self.context.deadline:
            return False
        self._schedule(start - now, f"a call ended with {error.kind}")
        return True

    def _may_begin(self) -> bool:
        """Returns True if the request may have one more call."""
        limit = self.stage.max_attempts
        unseen = sum(not call.begun for call in self.calls) if limit is not None else 0
        return self.left > 0 and (limit is None or len(self.context.record.attempts) + unseen < limit)

    # -- the next call ------------------------------------------------------------------------------------------

    def _arm(self, call: _Call) -> None:
        """Schedules the next call for when this one has taken the delay."""
        if self.left > 0 and self.failed is None:
            wait = call.began + self.delay_s - self.stage.clock.monotonic()
            what = "first chunk" if self.context.stream else "answer"
            self._schedule(max(0.0, wait), f"no {what} within {self.delay_s:.3g} s")

    def _schedule(self, delay_s: float, why: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._due, why)

    def _due(self, why: str) -> None:
        self._timer = None
        budget, avoid = self.stage.budget, self.failed
        if avoid is not None:
            self.refund += self.paid
            self.failed, self.paid = None, 0.0
        else:
            avoid = self.calls[-1]
            if avoid.queued:
                return  # another call would only queue behind it; its start sets the timer again
            if not self._may_begin() or (budget is not None and not budget.try_take(budget.spec.failure_cost)):
                return
        self._start(avoid, why)

    def _start(self, avoid: _Call, why: str) -> None:
        """Starts another call, by another key and endpoint than `avoid` if possible."""
        context, attempt = self.context.fork(), avoid.attempt
        if attempt is not None:
            context.last_key, context.last_endpoint = attempt.key, attempt.place
        context.next_attempt("hedge", why)
        self.stage.pace.hedges += 1
        task = self._loop.create_task(self._carry(self._new_call(context)))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        crash = asyncio.CancelledError("a further call was cancelled") if task.cancelled() else task.exception()
        if self._over or crash is None:
            return
        self.crash = crash
        if task.cancelled():  # not by this race: the queue was closed, and the whole request is repeated
            self._stop()
            self._tell()
        else:  # a defect
            self.ended = True
            self._decide(None)

    # -- the end ------------------------------------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self.winner is not None or self.ended

    def _decided(self) -> bool:
        return self._over or (not self.flying and self._timer is None)

    def _decide(self, call: _Call | None) -> None:
        """Ends the race: calls in flight are useless from now on."""
        self.decided_at = self.stage.clock.monotonic()
        self._stop()
        if self._scope is not None and call is not self.calls[0]:
            self._scope.reschedule(self._loop.time())
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done() and self._decided():
            self._news.set_result(None)

    def _stop(self) -> None:
        """Lets no further call begin."""
        self.left = min(self.left, 0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.paid and self.stage.budget is not None:
            self.stage.budget.give_back(self.paid)
        self.failed, self.paid = None, 0.0

    async def _leave(self) -> None:
        """Cancels the calls in flight and waits until they have released their slots and permits."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _abandon(self) -> None:
        """Ends the race for a caller that has left, or after a defect: nothing is kept."""
        self.ended = True
        self._stop()
        try:
            if self.result is not None and self.result.stream is not None:
                await self.result.stream.aclose()
        finally:
            await self._leave()

    def _settle_success(self, winner: _Call) -> None:
        stage = self.stage
        stage.pace.add(self.kind, self.decided_at - winner.began)
        stage.pace.wins += winner is not self.calls[0]
        for call in self.calls:
            attempt = call.attempt
            if call is winner or attempt is None or attempt.outcome not in ("cancelled", "ok"):
                continue
            taken = self.decided_at - call.began
            attempt.message = "another call was quicker"
            # It would have taken at least this long. Without these the percentile would sink with each hedge.
            if attempt.outcome == "cancelled" and taken > self.delay_s:
                stage.pace.add(self.kind, taken)
        if stage.budget is not None:
            stage.budget.give_back(self.refund or stage.budget.spec.success_refund)
        self._adopt(winner)
        self.context.tries.pop(stage.target, None)

    def _settle_failure(self) -> BaseException:
        """Returns the exception to raise; the first failure is its cause."""
        if self.crash is not None:
            return self.crash
        failure = self.failure
        assert failure is not None
        if failure is not self.first_failure and failure.__cause__ is None:
            failure.__cause__ = self.first_failure
        self._adopt(self.calls[-1])
        if isinstance(failure, CircuitOpen):
            self.context.tries[self.stage.target] = len(self.calls) - 1 + self.context.tries.get(self.stage.target, 0)
        return failure

    def _adopt(self, call: _Call) -> None:
        """Continues the request with this call's state."""
        mine, context = self.context, call.context
        if context is mine:
            return
        mine.attempt = context.attempt or mine.attempt
        mine.prefilled, mine.queued_at = context.prefilled, context.queued_at
        mine.last_key, mine.last_endpoint = context.last_key, context.last_endpoint


def layer(context: LayerContext) -> Layer | None:
    spec, resources = context.policy.hedge, context.resources
    if not spec.enabled:
        return None
    budget = budget_of(context)
    settings = f"max_hedges={spec.max_hedges} after {spec.after_s:g} s"
    if spec.percentile is not None:
        settings += f", or p{spec.percentile * 100:g} of ≥{spec.min_samples} calls"
    if budget is not None:
        settings += f" budget={budget.spec.capacity:g}"
    arguments = {
        "target": context.name,
        "spec": spec,
        "pace": resources.get(("hedge", context.name), lambda: Pace(spec)),
        "clock": resources.clock,
        "rng": resources.rng,
        "budget": budget,
        "max_attempts": context.policy.budget.max_attempts if budget else None,
        "park_after_s": context.policy.route.park_after_s,
    }
    return Layer(Hedge, arguments, settings)
