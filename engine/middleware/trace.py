"""Times every request, whatever its outcome."""

from __future__ import annotations

from engine.core.clock import Clock
from engine.core.errors import InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.prices import total
from engine.core.request import Attempt, Context, Request, Result
from engine.middleware.layer_context import LayerContext


class Trace(Middleware):
    """Fills the record's target, total time, first-token time and cost."""

    name = "trace"
    why = "outermost, so that it sees queue time, rejections, retries and cancellations"
    wraps = {
        "deadline": "a request that runs out of time must still be timed",
        "queue": "waiting is part of what a caller sees",
    }

    def __init__(self, next: Stage, clock: Clock) -> None:
        self.next = next
        self.clock = clock

    async def __call__(self, request: Request, context: Context) -> Result:
        try:
            result = await self.next(request, context)
        except BaseException:
            self._close(context)
            raise
        stream = result.stream
        if stream is None:
            self._close(context)
            return result

        def first() -> None:
            context.record.first_token_s = self.clock.monotonic() - context.submitted_at

        def settled(error: InferenceError | None) -> None:
            self._close(context)

        if stream.primed:
            first()
        else:
            stream.on_first(first)
        stream.on_settle(settled)
        return result

    def _close(self, context: Context) -> None:
        record = context.record
        record.total_s = self.clock.monotonic() - context.submitted_at
        if record.attempts:
            last = context.attempt or record.attempts[-1]
            record.target = last.target
            record.cost, record.cost_estimated = _cost(record.attempts)


def _cost(attempts: list[Attempt]) -> tuple[float | None, bool]:
    """Returns the cost of all attempts together, and True if part of it is an estimate. An attempt that used nothing,
    because it was refused, costs nothing. A sum with an unknown part is unknown, never too low."""
    if len(attempts) == 1:
        usage, cost = attempts[0].usage, attempts[0].cost
        return cost, cost is not None and usage is not None and usage.estimated
    costs, estimated = [], False
    for attempt in attempts:
        usage = attempt.usage
        if usage is not None or attempt.outcome == "ok":
            if attempt.cost is None:
                return None, False
            costs.append(attempt.cost)
            estimated = estimated or (usage is not None and usage.estimated)
    return (total(costs), estimated) if costs else (None, False)


def layer(context: LayerContext) -> Layer:
    return Layer(Trace, {"clock": context.resources.clock})
