"""One deadline over all attempts of a request."""

from __future__ import annotations

import asyncio

from engine.core.clock import Clock
from engine.core.errors import DeadlineExceeded
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.core.watchdog import Watchdog
from engine.middleware.layer_context import LayerContext
from engine.middleware.stream_timeout import BoundedSource
from engine.schemas.policy import DeadlineSpec


class Deadline(Middleware):
    """Stops a request, wherever it is, at its deadline: the shorter of the policy's and its own."""

    name = "deadline"
    why = "one deadline over all attempts: it cuts every wait further in"
    wraps = {
        "retry": "a deadline inside it would begin anew with each attempt",
        "fallback": "a deadline inside it would begin anew with each target",
    }

    def __init__(self, next: Stage, spec: DeadlineSpec, clock: Clock, dog: Watchdog) -> None:
        self.next = next
        self.spec = spec
        self.clock = clock
        self.dog = dog

    async def __call__(self, request: Request, context: Context) -> Result:
        total = self.spec.total_s
        if request.deadline_s is not None:
            total = request.deadline_s if total is None else min(total, request.deadline_s)
        if total is None:
            return await self.next(request, context)
        limit = total

        def exceeded() -> DeadlineExceeded:
            return DeadlineExceeded(
                f"request {request.id} was not finished within {limit:g} s; "
                "raise policy.deadline.total_s or the request's deadline_s"
            )

        watch = self.dog.watch()

        def start() -> None:
            context.on_first_attempt = None
            context.deadline = self.clock.monotonic() + limit
            watch.until(context.deadline)

        if self.spec.starts == "submit":
            start()
        else:
            context.on_first_attempt = start
        try:
            result = await self.next(request, context)
        except asyncio.CancelledError as error:
            if watch.close():
                raise exceeded() from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        if result.stream is not None:
            source = BoundedSource(result.stream.source, lambda: context.deadline, exceeded, self.dog)
            result.stream.source = source
        return result


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.deadline
    if not spec.enabled:
        return None
    total = f"{spec.total_s:g} s" if spec.total_s else "the request's own"
    return Layer(
        Deadline,
        {"spec": spec, "clock": context.resources.clock, "dog": context.resources.watchdog},
        f"total={total} starts={spec.starts}",
    )
