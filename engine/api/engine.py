"""The engine: built from a run spec, used from async or plain code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from engine.api.build import Pipeline, build
from engine.api.endpoints import EndpointHandlers
from engine.api.explain import explain
from engine.api.live_policy import LivePolicy
from engine.api.loop_host import LoopHost
from engine.api.map import answers
from engine.api.sync import SyncEngine
from engine.core.clock import Clock, SystemClock
from engine.core.errors import Cancelled, EngineError, InferenceError, Internal, InvalidRequest, nearest
from engine.core.pipeline import Stage, StageLine
from engine.core.request import PRIORITIES, Context, EngineRecord, Request, Result
from engine.core.resources import Resources
from engine.core.stream import Chunk
from engine.executors.services import Services
from engine.media.reader import media_access
from engine.schemas import RunSpec
from engine.telemetry.exporter import Exporter
from engine.telemetry.gauges import stages
from engine.telemetry.metrics import Metrics
from engine.telemetry.otel import OpenTelemetry

T = TypeVar("T")


class Engine:
    """Answers requests through the pipeline of one run spec.

    Use it as an async context manager on an event loop, or as a plain one from any thread; `sync` has the plain forms
    of `submit`, `stream` and `map`. An engine that was not entered starts on first use, on a loop thread of its own
    for plain callers.
    """

    def __init__(self, spec: RunSpec, *, services: Services | None = None, clock: Clock | None = None) -> None:
        """Does no I/O. Raises ConfigError and SetupError."""
        self.spec = spec
        self.clock = clock or (services.clock if services else SystemClock())
        self.services = services or Services(clock=self.clock, seed=spec.seed)
        if self.services.storage is None:
            self.services.storage = spec.storage
        self.services.media = media_access(spec)
        self.resources = Resources(self.clock, spec.seed)
        self.pipeline: Pipeline = build(spec, self.services, self.resources)
        self.metrics = Metrics()
        self.observers: list[Callable[[Request, Result], None]] = []
        """Called with each request and its result when it is finished, on the engine's loop."""
        if spec.telemetry.otel:
            targets = {chain.name: chain.target for chain in self.pipeline.target_chains}
            self.observers.append(OpenTelemetry(targets, self.clock, spec.telemetry.otel_content == "on"))
        self.exporter = Exporter(self, spec.telemetry)
        self.patient = False
        """Set by a job: its requests wait for open circuits without a limit (policy.breaker.on_open=wait)."""
        self._host = LoopHost()
        self.sync = SyncEngine(self.submit, self.stream, self.window, self._host)
        self._chain: Stage = self.pipeline.chain()
        budget = spec.policy.budget
        self._max_attempts = budget.max_attempts if budget.enabled else None
        self._direct: dict[str, Stage] = {}
        self._starting: asyncio.Task[None] | None = None
        self._ready = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ready" if self._ready else "not started"
        finished = self.metrics.total.requests
        return f"<Engine {' → '.join(self.targets)} ({state}, {finished} request{'s' * (finished != 1)} finished)>"

    @classmethod
    def compose(cls, overrides: Sequence[str] = (), config_dir: str | None = None) -> Engine:
        """The engine that `python -m engine OVERRIDES` would run. Raises ConfigError and SetupError."""
        from engine.config.compose import compose

        return cls(compose(overrides, config_dir).spec)

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connects, downloads and loads what the primary target needs. Raises SetupError."""
        if not self._host.claim():
            await asyncio.wrap_future(self._host.call(self.start()))
            return
        if self._starting is None or (self._starting.done() and _failed(self._starting)):
            self._starting = asyncio.get_running_loop().create_task(self._begin())
        await asyncio.shield(self._starting)
        self._ready = not self.closed

    async def _begin(self) -> None:
        await self.exporter.start()
        await self.pipeline.target_chains[0].executor.start()

    async def aclose(self) -> None:
        """Stops and frees everything. Requests in flight fail."""
        await self._host.end(self._close)

    async def _close(self) -> None:
        if not self._host.mark_closed():
            return
        self._ready = False
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        for chain in self.pipeline.target_chains:
            await chain.executor.aclose()
        await self.services.aclose()
        await self.exporter.aclose()

    async def __aenter__(self) -> Engine:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """`aclose` for plain callers. Raises EngineError on the thread of the engine's own loop."""
        self._host.end_blocking(self._close)

    def __enter__(self) -> Engine:
        try:
            self._host.call(self.start()).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- use ----------------------------------------------------------------------------------------------------

    async def submit(self, request: Request, *, target: str | None = None) -> Result:
        """The one result of a request. A failed inference does not raise: `result.error` says what happened.

        `target` names one target of the run spec; the others are not tried. Raises SetupError when the engine
        can't start, and CancelledError when the caller is cancelled.
        """
        if not isinstance(request, Request):
            raise TypeError(f"submit takes an engine.Request, not a {type(request).__name__}")
        if not self._ready or self._host.loop is not asyncio.get_running_loop():
            await self.start()
            if self._host.loop is not asyncio.get_running_loop():
                return await asyncio.wrap_future(self._host.call(self.submit(request, target=target)))
        if "stream" in request.body:
            request = replace(request, body=_whole(request.body))
        context = self._context(request, stream=False)
        try:
            result = await self._stage(target)(request, context)
        except InferenceError as error:
            result = Result(request.id or "", error=error)
        except asyncio.CancelledError:
            left = Result(request.id or "", error=Cancelled("cancelled by its caller"), engine=context.record)
            self._finished(request, left)
            raise
        except Exception as error:  # the boundary: one result for every request, also for a defect
            failure = Internal(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            result = Result(request.id or "", error=failure)
        result.id = request.id or ""
        result.engine = context.record
        self._finished(request, result)
        return result

    def count(self, request: Request, result: Result) -> None:
        """Counts a result that came another way than through `submit`, and tells the observers. Call it on the engine's
        event loop."""
        self._finished(request, result)

    def drain(self) -> None:
        """Cancels the requests that wait in a queue, and all later ones; calls in flight continue. For an engine that
        is about to be closed. Call it on the engine's event loop."""
        for gate in self.resources.items("queue").values():
            gate.close()

    async def stream(self, request: Request, *, target: str | None = None) -> AsyncIterator[Chunk]:
        """The chunks of a request. Raises the typed error when the stream can't be brought to a true end."""
        if not self._ready:
            await self.start()
        if self._host.loop is not asyncio.get_running_loop():
            self._host.check_usable()
            raise EngineError("stream from the event loop that the engine runs on, or use engine.sync.stream")
        context = self._context(request, stream=True)
        result = Result(request.id or "", engine=context.record)
        stream = None
        try:
            stream = (await self._stage(target)(request, context)).stream
            if stream is None:
                raise Internal("the executor gave no stream")
            async for chunk in stream:
                if chunk.usage is not None:
                    result.usage = chunk.usage
                yield chunk
        except InferenceError as error:
            result.error = error
            raise
        except (asyncio.CancelledError, GeneratorExit):
            result.error = Cancelled("the caller left the stream")
            raise
        finally:
            if stream is not None:
                await stream.aclose()
            self._finished(request, result)

    def map(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        window: int | None = None,
        ordered: bool = True,
    ) -> AsyncGenerator[Result, None]:
        """A result for each request, read lazily, at most `window` in flight (default: what the queue lets through,
        and half as many again). In the order of the requests, or as they finish with `ordered=False`."""
        return answers(self.submit, requests, self.window(window), ordered)

    def window(self, asked: int | None = None) -> int:
        """Returns the most requests that `map` has in flight."""
        concurrency = self.spec.policy.queue.concurrency
        return asked or concurrency + concurrency // 2 + 1

    def report(self) -> dict[str, Any]:
        """Returns counts, latencies and tokens so far, in all and by target."""
        return {**self.metrics.summary(), "stages": stages(self.resources)}

    @property
    def closed(self) -> bool:
        """True once it was closed; it takes no further request."""
        return self._host.closed

    @property
    def targets(self) -> list[str]:
        """The names of the targets, the primary one first."""
        return [chain.name for chain in self.pipeline.target_chains]

    def explain(self, request: Request) -> dict[str, Any]:
        """Returns what a request sent now would meet: targets in order, key, waits, tries, reasons. Calls nothing."""
        return explain(self.pipeline, request).as_dict()

    def describe(self) -> list[StageLine]:
        """The chain, one line a stage."""
        return self.pipeline.describe()

    @property
    def endpoint_handler(self) -> EndpointHandlers:
        """The mapping `[model][endpoint]` of handlers; called with a model and an endpoint, that handler."""
        return EndpointHandlers(self.pipeline.target_chains, self.submit, self.sync, self._host)

    @property
    def locked_out(self) -> str | None:
        """The reason why no target can be called: every key of every target is disabled. None if one can be called."""
        rings = [self.resources.find(("keys", name)) for name in self.targets]
        if not all(ring is not None and ring.exhausted for ring in rings):
            return None
        return "; ".join(f"{name}: {reason}" for ring in rings for name, reason in ring.reasons.items())

    @property
    def policy(self) -> LivePolicy:
        """Sizes, limits, circuits, keys and priorities, to read and to change while the engine runs."""
        return LivePolicy(self.resources, self.pipeline.target_chains, self._host)

    @property
    def running(self) -> bool:
        """True while the event loop that the engine works on runs."""
        return self._host.running

    # -- inside -------------------------------------------------------------------------------------------------

    def _finished(self, request: Request, result: Result) -> None:
        self.metrics.add(result)
        for observer in self.observers:
            observer(request, result)

    def _context(self, request: Request, stream: bool) -> Context:
        record = EngineRecord(priority=request.priority, metadata=request.metadata, max_attempts=self._max_attempts)
        context = Context(record, self.clock.monotonic(), PRIORITIES[request.priority], stream)
        context.patient = self.patient
        return context

    def _stage(self, target: str | None) -> Stage:
        if target is None:
            return self._chain
        if target not in self._direct:
            if target not in self.targets:
                raise InvalidRequest(
                    f"target: {target!r} is not a target of this engine; {nearest(target, self.targets)}"
                )
            self._direct[target] = self.pipeline.chain([target])
        return self._direct[target]


def _whole(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the body without `stream`: `submit` returns whole replies."""
    return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
