"""Many requests in one call: embedding requests that differ only in their input share it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from copy import copy
from functools import partial
from typing import Any

import msgspec

from engine.core.errors import Cancelled, InferenceError, Internal, Malformed
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Attempt, Context, EngineRecord, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import BatchSpec

SPLIT_ON = frozenset({"invalid_request", "too_long", "content_filtered", "malformed", "internal"})
"""Failures that one bad row can cause; the others concern the call, and every member of it."""


class _Member:
    """One request that waits for its part of a batch."""

    __slots__ = ("context", "done", "inputs", "request")

    def __init__(self, request: Request, context: Context, inputs: list[Any]) -> None:
        self.request = request
        self.context = context
        self.inputs = inputs
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()


class _Lane:
    """The members of one kind of request that wait for the next call, and the calls in flight."""

    __slots__ = ("calls", "timer", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Member] = []
        self.calls: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None


class Batch(Middleware):
    """Combines compatible embedding requests up to `max_size` requests or `max_wait_s`.

    At most `max_calls` calls of one kind are in flight; what arrives meanwhile makes the next batch larger. A call
    that fails for a reason that one row can cause is split in two until the bad row is alone.
    """

    name = "batch"
    why = "the batch is the call; its parts differ only in their input, never in model, parameters or key"
    wrapped_by = {
        "retry": "a member is retried on its own, in any batch that waits then",
        "route": "requests of different keys or endpoints must not share a call",
    }

    def __init__(self, next: Stage, spec: BatchSpec, server_info: ServerInfo) -> None:
        self.next = next
        self.spec = spec
        self.server_info = server_info
        self._lanes: dict[Hashable, _Lane] = {}

    async def __call__(self, request: Request, context: Context) -> Result:
        if request.task != "embedding" or context.stream:
            return await self.next(request, context)
        value = request.body.get("input")
        inputs = value if isinstance(value, list) else [value]
        if not inputs or not all(isinstance(item, str) and item for item in inputs):
            return await self.next(request, context)  # token lists and mistakes are not batched
        member = _Member(request, context, inputs)
        kind = self._kind(request, context)
        lane = self._lanes.setdefault(kind, _Lane())
        lane.waiting.append(member)
        self._pump(kind, lane)
        try:
            return await member.done
        except asyncio.CancelledError:
            if member in lane.waiting:
                lane.waiting.remove(member)
            raise

    def _kind(self, request: Request, context: Context) -> Hashable:
        rest = {name: value for name, value in request.body.items() if name != "input"}
        attempt = context.attempt
        where = (attempt.key, attempt.place) if attempt is not None else None
        return where, (msgspec.json.encode(rest, order="sorted") if rest else b"")

    def _pump(self, kind: Hashable, lane: _Lane, due: bool = False) -> None:
        """Starts as many calls as are due; the rest waits for more members, or for a call to end."""
        while lane.waiting and len(lane.calls) < self.spec.max_calls:
            full = len(lane.waiting) >= self.spec.max_size or self._size(lane.waiting) < len(lane.waiting)
            if not full and not due:
                if lane.timer is None:
                    loop = asyncio.get_running_loop()
                    lane.timer = loop.call_later(self.spec.max_wait_s, self._due, kind, lane)
                return
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
            size = self._size(lane.waiting)
            members, lane.waiting = lane.waiting[:size], lane.waiting[size:]
            task = asyncio.get_running_loop().create_task(self._run(members))
            lane.calls.add(task)
            task.add_done_callback(lambda done: self._ended(kind, lane, done))
            for member in members:
                member.done.add_done_callback(partial(self._abandon, task, members))
        if not lane.waiting and not lane.calls:
            self._lanes.pop(kind, None)

    def _size(self, waiting: list[_Member]) -> int:
        """Returns how many waiting members fit one call: no more texts than the server takes, but at least one
        request."""
        most = self.server_info.max_inputs
        if most is None:
            return min(len(waiting), self.spec.max_size)
        texts = 0
        for size, member in enumerate(waiting[: self.spec.max_size]):
            texts += len(member.inputs)
            if texts > most and size:
                return size
        return min(len(waiting), self.spec.max_size)

    def _due(self, kind: Hashable, lane: _Lane) -> None:
        lane.timer = None
        self._pump(kind, lane, due=True)

    def _ended(self, kind: Hashable, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.calls.discard(task)
        self._pump(kind, lane)

    @staticmethod
    def _abandon(task: asyncio.Task[None], members: list[_Member], _: asyncio.Future[Result]) -> None:
        """Stops a call whose members have all left."""
        if all(member.done.cancelled() for member in members):
            task.cancel()

    async def _run(self, members: list[_Member]) -> None:
        try:
            await self._call(members)
        except asyncio.CancelledError:
            self._fail(members, Cancelled("the batch was stopped"))
            raise
        except Exception as error:
            self._fail(members, Internal(f"batch: {type(error).__name__}: {error}"))

    async def _call(self, members: list[_Member]) -> None:
        members = [member for member in members if not member.done.done()]
        if not members:
            return
        if len(members) == 1:
            await self._alone(members[0])
            return
        first = members[0]
        inputs = [item for member in members for item in member.inputs]
        request = Request("embedding", {**first.request.body, "input": inputs}, id=first.request.id)
        own = first.context.attempt
        attempt = Attempt(own.target, own.key, place=own.place) if own is not None else Attempt("")
        context = Context(EngineRecord(attempts=[attempt]), first.context.submitted_at)
        context.attempt = attempt
        try:
            try:
                result = await self.next(request, context)
            finally:
                _tell(members, attempt)
            self._distribute(members, result)
        except InferenceError as error:
            if error.kind not in SPLIT_ON:
                # A server of models fails a whole call as broken if one row makes its model fail. A member with another
                # try joins another batch; the others are called one by one now.
                last = [member for member in members if error.status == 500 and member.context.last_try]
                self._fail([member for member in members if member not in last], error)
                members = last
            half = len(members) // 2
            await self._call(members[:half])
            await self._call(members[half:])

    async def _alone(self, member: _Member) -> None:
        try:
            result = await self.next(member.request, member.context)
        except InferenceError as error:
            self._fail([member], error)
        else:
            if not member.done.done():
                member.done.set_result(result)

    def _distribute(self, members: list[_Member], result: Result) -> None:
        body = result.body or {}
        data = body.get("data")
        total = sum(len(member.inputs) for member in members)
        if not isinstance(data, list) or len(data) != total:
            raise Malformed(f"expected {total} embeddings, got {len(data) if isinstance(data, list) else 'none'}")
        data = sorted(data, key=lambda item: item["index"])
        shares = _shares(result, members)
        cost = result.usage.cost if result.usage is not None else None
        whole = sum(shares)
        start = 0
        for member, share in zip(members, shares, strict=True):
            part = data[start : start + len(member.inputs)]
            start += len(member.inputs)
            if member.done.done():
                continue
            for index, item in enumerate(part):
                item["index"] = index
            usage = Usage(input_tokens=share) if result.usage is not None else None
            if usage is not None and cost is not None and whole:
                usage.cost = cost * share / whole
            own = {**body, "data": part, "usage": {"prompt_tokens": share, "total_tokens": share}}
            member.done.set_result(Result(member.request.id or "", own, usage=usage))

    @staticmethod
    def _fail(members: list[_Member], error: InferenceError) -> None:
        for member in members:
            if not member.done.done():
                # A copy for each: the outer stages note in it the consequences for their request.
                member.done.set_exception(copy(error))


def _tell(members: list[_Member], attempt: Attempt) -> None:
    """Copies the executor's notes on the call into each member's record."""
    for member in members:
        mine = member.context.attempt
        if mine is not None:
            mine.status, mine.provider_request_id = attempt.status, attempt.provider_request_id
            mine.sent, mine.hints = attempt.sent, attempt.hints


def _shares(result: Result, members: list[_Member]) -> list[int]:
    """Returns each member's tokens: the call's by length of text, adding up to the whole."""
    total = result.usage.input_tokens if result.usage else 0
    weights = [sum(len(text) for text in member.inputs) for member in members]
    whole = sum(weights)
    shares, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        upto = total * seen // whole
        shares.append(upto - given)
        given = upto
    return shares


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.batch
    if not spec.enabled or spec.max_size == 1 or context.target.provider.kind == "local":
        return None  # a model in this process takes all waiting requests whenever it is free
    settings = f"embeddings: ≤{spec.max_size} requests, ≤{spec.max_wait_s * 1000:g} ms, ≤{spec.max_calls} calls at once"
    return Layer(Batch, {"spec": spec, "server_info": context.server_info}, settings)
