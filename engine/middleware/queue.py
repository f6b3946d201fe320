"""The only place where work waits: a bounded priority queue before each target."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from engine.core.clock import Clock
from engine.core.errors import DeadlineExceeded, InferenceError, QueueFull
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import QueueSpec


class _Waiter:
    """One waiting request. Only its latest entry in the heap counts."""

    __slots__ = ("context", "entry", "key", "order", "request_id", "slot")

    entry: int

    def __init__(self, request_id: str | None, context: Context, key: float, order: int) -> None:
        self.request_id = request_id
        self.context = context
        self.key = key
        self.order = order
        self.slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class PriorityGate:
    """`concurrency` slots and a heap of the requests that wait for one.

    The sort key is enqueue time + tier × `ageing_s`: a request overtakes only those of the next lower tier that came
    less than `ageing_s` earlier, so nothing starves. Equal keys are first in, first out. `size`, `concurrency` and
    `on_full` may be changed at any time. Lives on one event loop.
    """

    def __init__(self, spec: QueueSpec, clock: Clock) -> None:
        self.size = spec.size
        self.on_full = spec.on_full
        self.ageing_s = spec.ageing_s
        self.clock = clock
        self.active = 0
        self.waiting = 0
        self.evicted = 0
        self.rejected = 0
        self._concurrency = spec.concurrency
        self._closed = False
        self._heap: list[tuple[float, int, int, _Waiter]] = []
        self._order = count()
        self._entries = count()

    @property
    def concurrency(self) -> int:
        """The number of slots. A smaller number takes no slot away from a request that has one."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, slots: int) -> None:
        self._concurrency = slots
        self._serve()

    def try_acquire(self, context: Context) -> bool:
        """Takes a slot if one is free and no request waits."""
        if self.waiting or self.active >= self._concurrency or self._closed:
            return False
        if context.queued_at is None:
            context.queued_at = self.clock.monotonic()
        self.active += 1
        return True

    async def acquire(self, context: Context, request_id: str | None = None) -> None:
        """Waits for a slot. Raises QueueFull when no request may wait, or when it was evicted by one of a higher
        priority.

        Raises CancelledError when the gate is closed.
        """
        if self._closed:
            raise asyncio.CancelledError("the queue is closed")
        if self.try_acquire(context):
            return
        now = self.clock.monotonic()
        if context.queued_at is None:
            context.queued_at = now
        waiter = _Waiter(request_id, context, self._key(context), next(self._order))
        if self.waiting >= self.size and self.on_full != "wait":
            self._make_room(waiter)
        self._push(waiter)
        self.waiting += 1
        slot = waiter.slot
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                if slot.exception() is None:
                    self.release()  # the slot was given in the instant of the cancellation
            else:
                self.waiting -= 1
                self._compact()
                # A slot may have become free since, and a new request may wait behind this one.
                self._serve()
            raise
        finally:
            context.record.queued_s += self.clock.monotonic() - now

    def release(self) -> None:
        """Returns a slot and hands it to the next in order."""
        self.active -= 1
        if self._heap:
            self._serve()

    def close(self) -> None:
        """Admits no further request and cancels those that wait. Requests with a slot continue."""
        self._closed = True
        for *_, waiter in self._heap:
            waiter.slot.cancel()

    def reprioritise(self, request_id: str, tier: int) -> bool:
        """Gives a waiting request another tier; its place still counts from its arrival. False: it does not wait
        here."""
        for *_, waiter in self._heap:
            if waiter.request_id == request_id and not waiter.slot.done():
                waiter.context.tier = tier
                waiter.key = self._key(waiter.context)
                self._push(waiter)
                self._compact()
                return True
        return False

    def ahead_of(self, tier: int) -> int:
        """Returns how many waiting requests would be served before a new one of this tier."""
        place = self.clock.monotonic() + tier * self.ageing_s
        return sum(
            key <= place and entry == waiter.entry and not waiter.slot.done() for key, _, entry, waiter in self._heap
        )

    def gauges(self) -> dict[str, float]:
        return {
            "queue_waiting": self.waiting,
            "queue_active": self.active,
            "queue_concurrency": self._concurrency,
            "queue_evicted": self.evicted,
            "queue_rejected": self.rejected,
        }

    def _key(self, context: Context) -> float:
        return (context.queued_at or 0.0) + context.tier * self.ageing_s

    def _push(self, waiter: _Waiter) -> None:
        waiter.entry = next(self._entries)
        heapq.heappush(self._heap, (waiter.key, waiter.order, waiter.entry, waiter))

    def _make_room(self, newcomer: _Waiter) -> None:
        """Evicts the lowest-ranked request. Raises QueueFull when that is the new one, or when the policy evicts
        none."""
        last = max(
            (waiter for *_, waiter in self._heap if not waiter.slot.done()),
            key=lambda waiter: (waiter.key, waiter.order),
            default=newcomer,
        )
        if self.on_full == "reject" or last is newcomer or last.key <= newcomer.key:
            self.rejected += 1
            raise QueueFull(
                f"the queue is full: {self.waiting} wait and {self.active} are in flight; "
                "raise policy.queue.size or policy.queue.concurrency, or set policy.queue.on_full=wait"
            )
        self.evicted += 1
        self.waiting -= 1
        last.slot.set_exception(
            QueueFull("evicted from a full queue by a request of a higher priority (policy.queue.on_full=evict_lowest)")
        )
        self._compact()

    def _serve(self) -> None:
        while self._heap and self.active < self._concurrency:
            _, _, entry, waiter = heapq.heappop(self._heap)
            if waiter.slot.done() or entry != waiter.entry:
                continue  # cancelled, evicted, or moved to another place
            self.waiting -= 1
            deadline = waiter.context.deadline
            if deadline is not None and self.clock.monotonic() >= deadline:
                waiter.slot.set_exception(DeadlineExceeded("its time was over while it waited in the queue"))
                continue
            self.active += 1
            waiter.slot.set_result(None)

    def _compact(self) -> None:
        if len(self._heap) > 64 and len(self._heap) > 2 * self.waiting:
            self._heap = [each for each in self._heap if not each[3].slot.done() and each[2] == each[3].entry]
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
        if not gate.try_acquire(context):
            await gate.acquire(context, request.id)
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


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.queue
    if not spec.enabled:
        return None
    gate = context.resources.get(("queue", context.name), lambda: PriorityGate(spec, context.resources.clock))
    settings = f"size={spec.size} concurrency={spec.concurrency} on_full={spec.on_full}"
    return Layer(Queue, {"gate": gate}, settings)
