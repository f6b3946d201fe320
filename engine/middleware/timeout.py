"""The limits of one attempt: a whole call, the first token, and silence within a stream."""

from __future__ import annotations

import asyncio

from engine.core.clock import Clock
from engine.core.errors import TimedOut, Truncated
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.core.watchdog import Watchdog
from engine.middleware.layer_context import LayerContext
from engine.middleware.stream_timeout import BoundedSource
from engine.schemas.policy import TimeoutSpec


class Timeout(Middleware):
    """Cancels an attempt that takes too long."""

    name = "timeout"
    why = "inside the breaker, so that it sees timeouts"

    def __init__(self, next: Stage, spec: TimeoutSpec, clock: Clock, dog: Watchdog) -> None:
        self.next = next
        self.spec = spec
        self.clock = clock
        self.dog = dog

    async def __call__(self, request: Request, context: Context) -> Result:
        if context.stream:
            return await self._stream(request, context)
        limit = self.spec.attempt_s
        if limit is None:
            return await self.next(request, context)
        watch = self.dog.watch()
        watch.until(self.clock.monotonic() + limit)
        try:
            result = await self.next(request, context)
        except asyncio.CancelledError as error:
            if watch.close():
                raise TimedOut(f"no answer within {limit:g} s (policy.timeout.attempt_s)") from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        return result

    async def _stream(self, request: Request, context: Context) -> Result:
        first, idle = self.spec.first_token_s, self.spec.idle_s
        watch = self.dog.watch()
        if first is not None:
            watch.until(self.clock.monotonic() + first)
        try:
            result = await self.next(request, context)
            if result.stream is not None:
                await result.stream.prime()
        except asyncio.CancelledError as error:
            if watch.close():
                raise TimedOut(f"no first token within {first:g} s (policy.timeout.first_token_s)") from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        if result.stream is not None and idle is not None:
            result.stream.source = BoundedSource(
                result.stream.source,
                lambda: self.clock.monotonic() + idle,
                lambda: Truncated(f"the stream was silent for {idle:g} s (policy.timeout.idle_s)"),
                self.dog,
            )
        return result


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.timeout
    if not spec.enabled:
        return None
    shown = ((name, getattr(spec, name)) for name in ("attempt_s", "first_token_s", "idle_s"))
    resources = context.resources
    arguments = {"spec": spec, "clock": resources.clock, "dog": resources.watchdog}
    return Layer(Timeout, arguments, " ".join(f"{name[:-2]}={value:g} s" for name, value in shown if value))
