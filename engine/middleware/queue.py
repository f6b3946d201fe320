"""The only place where work waits: a bounded priority queue before each target."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from engine.clock import Clock
from engine.errors import InferenceError, QueueFull
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Context, Request, Result
from schemas.policy import QueueSpec


class PriorityGate:
    """`concurrency` slots and a heap of those who wait for one.

    The sort key is enqueue time + tier × `ageing_s`: a request overtakes only those of the next lower tier that came
    less than `ageing_s` earlier, so nothing starves. Equal keys are first in, first out. Lives on one event loop.
    """

    def __init__(self, spec: QueueSpec, clock: Clock) -> None:
        self.spec = spec
        self.clock = clock
        self.active = 0
        self.waiting = 0
        self._closed = False
        self._heap: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    async def acquire(self, context: Context) -> None:
        """Waits for a slot. Raises QueueFull when nobody may wait and `on_full` is reject.

        Raises CancelledError when the gate is closed.
        """
        if self._closed:
            raise asyncio.CancelledError("the queue is closed")
        if self.active < self.spec.concurrency and not self.waiting:
            self.active += 1
            return
        if self.spec.on_full == "reject" and self.waiting >= self.spec.size:
            raise QueueFull(
                f"the queue is full: {self.waiting} wait and {self.active} are under way; "
                "raise policy.queue.size or policy.queue.concurrency, or set policy.queue.on_full=wait"
            )
        now = self.clock.monotonic()
        if context.queued_at is None:
            context.queued_at = now
        slot = asyncio.get_running_loop().create_future()
        key = context.queued_at + context.tier * self.spec.ageing_s
        heapq.heappush(self._heap, (key, next(self._order), slot))
        self.waiting += 1
        try:
            await slot
        except BaseException:
            if slot.done() and not slot.cancelled():
                self.release()  # the slot was given in the instant of the cancellation
            else:
                self.waiting -= 1
                self._compact()
            raise
        finally:
            context.record.queued_s += self.clock.monotonic() - now

    def close(self) -> None:
        """Lets nobody in any more; who waits is cancelled. Those with a slot are left alone."""
        self._closed = True
        for _, _, slot in self._heap:
            slot.cancel()

    def release(self) -> None:
        """Gives a slot back and hands it to the next in order."""
        self.active -= 1
        while self._heap and self.active < self.spec.concurrency:
            slot = heapq.heappop(self._heap)[2]
            if slot.done():
                continue  # cancelled while it waited
            self.active += 1
            self.waiting -= 1
            slot.set_result(None)

    def _compact(self) -> None:
        if len(self._heap) > 64 and len(self._heap) > 2 * self.waiting:
            self._heap = [entry for entry in self._heap if not entry[2].done()]
            heapq.heapify(self._heap)


class Queue(Middleware):
    """Holds a slot of the target's gate for an attempt, or for as long as its stream lasts."""

    name = "queue"
    why = "the only place where work waits; a retry keeps the place of its first try"
    wraps = {
        "breaker": "a permit taken before a wait goes stale",
        "timeout": "waiting for a slot is not the provider's time",
    }

    def __init__(self, next: Stage, gate: PriorityGate) -> None:
        self.next = next
        self.gate = gate

    async def __call__(self, request: Request, context: Context) -> Result:
        gate = self.gate
        await gate.acquire(context)
        try:
            result = await self.next(request, context)
        except BaseException:
            gate.release()
            raise
        if result.stream is None:
            gate.release()
        else:
            result.stream.on_settle(self._settled)
        return result

    def _settled(self, error: InferenceError | None) -> None:
        self.gate.release()


def layer(branch: Branch) -> Layer | None:
    spec = branch.policy.queue
    if not spec.enabled:
        return None
    gate = branch.resources.get(("queue", branch.name), lambda: PriorityGate(spec, branch.resources.clock))
    settings = f"size={spec.size} concurrency={spec.concurrency} on_full={spec.on_full}"
    return Layer(Queue, {"gate": gate}, settings)
