"""A chain over an executor that follows a script, in virtual time. What the middleware tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from engine import Request
from engine.core.errors import InferenceError
from engine.core.pipeline import Stage, compose
from engine.core.request import Context, EngineRecord, Result
from engine.core.resources import Resources
from engine.core.stream import Chunk, ChunkStream
from engine.core.virtual_time import VirtualClock, run
from engine.middleware.fallback import Fallback
from engine.middleware.layer_context import LayerContext
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.policy import PolicySpec
from engine.schemas.provider import ProviderSpec, SimulatedProviderSpec

EXAMPLES = int(os.environ.get("EXAMPLES", "30"))
"""Runs of each state machine; EXAMPLES=1000 looks harder."""

Step = float | InferenceError | Callable[[], Any]


class Scripted:
    """Each call takes the next step: a number answers after so many seconds, an error is raised. The last repeats."""

    keys: tuple[str, ...] = ()
    tasks = frozenset({"chat"})

    def __init__(self, *steps: Step, chunks: int = 3, chunk_s: float = 0.0) -> None:
        self.steps = list(steps) or [0.0]
        self.chunks = chunks
        self.chunk_s = chunk_s
        self.calls = 0
        self.active = 0
        self.peak = 0
        self.order: list[str | None] = []
        self.keys_used: list[str | None] = []
        self.streams_closed = 0

    async def __call__(self, request: Request, context: Context) -> Result:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        self.order.append(request.id)
        self.keys_used.append(context.attempt.key if context.attempt else None)
        if context.stream and not isinstance(step, InferenceError):
            return Result(request.id or "", stream=ChunkStream(self._stream(float(step))))  # type: ignore[arg-type]
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            if isinstance(step, InferenceError):
                raise step
            await asyncio.sleep(float(step))  # type: ignore[arg-type]
        finally:
            self.active -= 1
        return Result(request.id or "", {"answer": self.calls})

    async def _stream(self, first_s: float) -> AsyncIterator[Chunk]:
        try:
            await asyncio.sleep(first_s)
            for index in range(self.chunks):
                if index:
                    await asyncio.sleep(self.chunk_s)
                yield Chunk({"index": index})
        finally:
            self.streams_closed += 1


def branch(
    clock: VirtualClock,
    policy: PolicySpec,
    keys: tuple[str, ...] = (),
    provider: ProviderSpec | None = None,
    model: ModelSpec | None = None,
    primary: bool = True,
) -> LayerContext:
    target = TargetSpec(
        provider=provider or SimulatedProviderSpec(kind="simulated"),
        model=model or ModelSpec(name="m"),
        hardware=AutoHardwareSpec(kind="auto"),
    )
    return LayerContext("t", target, policy, Resources(clock, seed=1), keys=keys, primary=primary)


def chain(modules: list[Any], made: LayerContext, executor: Stage) -> Stage:
    layers = [module.layer(made) for module in modules]
    return compose([layer for layer in layers if layer is not None], executor)


def waiting(stage: Stage, made: LayerContext) -> Stage:
    """The stage under the one that waits for circuits to close."""
    return Fallback([stage], [made.name], [None], made.policy, made.resources.clock)


def request(id: str = "r", **fields: Any) -> Request:
    return Request("chat", {"messages": []}, id=id, **fields)


def context(clock: VirtualClock, tier: int = 1, stream: bool = False) -> Context:
    return Context(EngineRecord(), clock.monotonic(), tier, stream)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test's coroutine on a virtual-time loop; it gets the loop's clock. Tasks that it leaves are ended."""

    async def alone(clock: VirtualClock) -> None:
        try:
            await test(clock)
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def wrapped() -> None:
        run(alone)

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped
