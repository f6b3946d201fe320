"""The numbers of docs/architecture.md: what a queue of 100 and a limit of 10 admit, in both orders."""

from __future__ import annotations

import asyncio

from engine import Engine, Request
from engine.config.compose import compose as compose_spec
from engine.core.errors import Throttled
from engine.core.pipeline import Layer, Middleware, Stage, compose
from engine.core.request import Context, EngineRecord, Result
from engine.core.virtual_time import VirtualClock
from engine.core.virtual_time import run as run_virtual

QUEUE, LIMIT, REQUESTS = 100, 10, 200


class Bounded(Middleware):
    """Lets `slots` requests in and rejects the rest; `running` of them go further, the others wait."""

    name = "bounded"
    why = "a test"

    def __init__(self, next: Stage, slots: int, running: int) -> None:
        self.next = next
        self._free = slots
        self._running = asyncio.Semaphore(running)

    async def __call__(self, request: Request, context: Context) -> Result:
        if not self._free:
            raise Throttled("full")
        self._free -= 1
        async with self._running:
            return await self.next(request, context)


async def admitted(*layers: Layer) -> int:
    """Returns how many of the requests reach the executor when it answers only after all have been sent."""
    everyone = asyncio.Event()

    async def executor(request: Request, context: Context) -> Result:
        await everyone.wait()
        return Result(request.id or "")

    stage = compose(layers, executor)
    calls = [stage(Request("chat", {}), Context(EngineRecord(), 0.0)) for _ in range(REQUESTS)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    everyone.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(isinstance(result, Result) for result in results)


def queue() -> Layer:
    return Layer(Bounded, {"slots": QUEUE + LIMIT, "running": LIMIT})


def limit() -> Layer:
    return Layer(Bounded, {"slots": LIMIT, "running": LIMIT})


async def test_a_queue_outside_a_limit_admits_both() -> None:
    assert await admitted(queue()) == QUEUE + LIMIT


async def test_a_limit_outside_a_queue_admits_the_limit() -> None:
    assert await admitted(limit(), queue()) == LIMIT


def test_the_engines_own_queue_admits_both() -> None:
    words = [
        "provider=simulated",
        "provider.latency_s=1",
        f"policy.queue.size={QUEUE}",
        f"policy.queue.concurrency={LIMIT}",
        "policy.queue.on_full=reject",
        "policy.retry.max_throttle_retries=0",
        "policy.retry.max_retries=0",
    ]

    async def everything(clock: VirtualClock) -> list[Result]:
        async with Engine(compose_spec(words).spec, clock=clock) as engine:
            requests = [Request("chat", {"messages": [{"role": "user", "content": "Hi"}]}) for _ in range(REQUESTS)]
            return await asyncio.gather(*(engine.submit(request) for request in requests))

    results = run_virtual(everything)
    assert sum(result.ok for result in results) == QUEUE + LIMIT
    assert {result.error.kind for result in results if result.error} == {"queue_full"}
