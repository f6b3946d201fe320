"""Equal requests get one answer: a stored one, or that of a call in flight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from engine.core.clock import Clock
from engine.core.errors import InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.core.usage import Usage
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import CacheSpec

CALLERS_OWN = frozenset({"deadline", "cancelled", "queue_full"})
"""Failures that concern one caller only: the next equal request may succeed."""

_ASIDE = ("stream", "stream_options", "user")
"""Fields of a body that do not affect the answer."""

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(slots=True)
class Answer:
    """A reply as bytes, so that an edit changes one caller's copy only."""

    content: bytes
    usage: Usage | None
    warnings: tuple[str, ...]
    expires: float = float("inf")
    """In seconds of the monotonic clock."""

    def give(self, request: Request, context: Context, how: str) -> Result:
        """Returns a copy for one request; `how` is hit or shared. It has the usage of the call, and costs nothing."""
        record = context.record
        record.cache, record.cost = how, 0.0
        for warning in self.warnings:
            context.warn(warning)
        usage = copy(self.usage)
        return Result(request.id or "", msgspec.json.decode(self.content), usage=usage)


class Flight:
    """A call that several equal requests wait for. Its leader makes it; the others wait in line."""

    __slots__ = ("_began", "_line", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._began = False
        """True once its first attempt has begun, and with it the deadlines that count from there."""
        self._line: deque[tuple[asyncio.Future[Answer | InferenceError | None], Context]] = deque()

    async def wait(self, context: Context) -> Answer | InferenceError | None:
        """Returns the outcome; None: the leader is gone, and this caller leads from now on."""
        turn: asyncio.Future[Answer | InferenceError | None] = asyncio.get_running_loop().create_future()
        self._line.append((turn, context))
        if self._began:
            _start(context)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self.hand_over()  # it was made the leader in the instant of its cancellation
            raise

    def follow(self, context: Context) -> None:
        """Lets the leader's first attempt start the deadlines of all requests in line."""
        own: Callable[[], None] | None = context.on_first_attempt

        def begin() -> None:
            self._began = True
            context.on_first_attempt = None
            if own is not None:
                own()
            for turn, waiting in self._line:
                if not turn.done():
                    _start(waiting)

        context.on_first_attempt = begin

    def hand_over(self) -> None:
        """Makes the next in line the leader. Ends the flight if the line is empty."""
        while self._line:
            turn, _ = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.ended = True

    def land(self, outcome: Answer | InferenceError) -> None:
        """Gives the outcome to all requests in line."""
        self.ended = True
        for turn, _ in self._line:
            if not turn.done():
                turn.set_result(outcome)


def _start(context: Context) -> None:
    if context.on_first_attempt is not None:
        context.on_first_attempt()


class Answers:
    """The answers of one engine, the least recently used first, and the calls in flight.

    Bounded by entries and by the bytes of the replies; an answer larger than the whole store is not kept. Lives on one
    event loop.
    """

    def __init__(self, spec: CacheSpec, clock: Clock) -> None:
        self.spec = spec
        self.clock = clock
        self.bytes = 0
        self.hits = self.misses = self.shared = self.evicted = 0
        self.chains = 0
        """Number of chains that keep their answers here, each apart."""
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()
        self._flights: dict[bytes, Flight] = {}

    def get(self, key: bytes) -> Answer | None:
        """Returns the answer, unless it has expired."""
        answer = self._kept.get(key)
        if answer is None:
            return None
        if self.clock.monotonic() >= answer.expires:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        """Stores an answer, and drops as many others as necessary."""
        if key in self._kept:
            self._drop(key)
        if len(answer.content) > self.spec.max_bytes:
            return
        if self.spec.ttl_s is not None:
            answer.expires = self.clock.monotonic() + self.spec.ttl_s
        self._kept[key] = answer
        self.bytes += len(answer.content)
        while len(self._kept) > self.spec.max_entries or self.bytes > self.spec.max_bytes:
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def flight(self, key: bytes) -> Flight | None:
        """Returns the flight of an equal request."""
        return self._flights.get(key)

    def take_off(self, key: bytes) -> Flight:
        """Starts a new flight for a key that has none."""
        flight = self._flights[key] = Flight()
        return flight

    def settle(self, key: bytes, flight: Flight) -> None:
        """Removes a flight that has ended."""
        if flight.ended and self._flights.get(key) is flight:
            del self._flights[key]

    def gauges(self) -> dict[str, float]:
        return {
            "cache_entries": len(self._kept),
            "cache_bytes": self.bytes,
            "cache_under_way": len(self._flights),
            "cache_hits_total": self.hits,
            "cache_misses_total": self.misses,
            "cache_shared_total": self.shared,
            "cache_evicted_total": self.evicted,
        }

    def _drop(self, key: bytes) -> None:
        self.bytes -= len(self._kept.pop(key).content)


class Cache(Middleware):
    """Answers an equal request from memory, or with the call of one in flight. Streams bypass it.

    Equal means: the same task and the same bytes on the wire, whatever the order of the fields. A request counts as
    deterministic with temperature 0 or a seed, its own or that of `model.parameters` of the run's own target.

    Of equal requests in flight the first one makes the call, in its own time and with its own priority: a HIGH one
    that comes behind a LOW one shares it, and waits for it. When the first one gives up (cancelled, deadline, no room
    in the queue) the next one makes the call; all get any other failure. A deadline that starts with the first attempt
    starts with the shared one.
    """

    name = "cache"
    why = "outside everything that costs: a hit takes no slot, no token, no key and no breaker's sample"
    wraps = {
        "fallback": "an answer is kept, no matter which target gave it",
        "retry": "a shared call is tried again once for all who wait for it",
        "queue": "a hit must not wait behind calls",
    }
    wrapped_by = {
        "trace": "a hit is a request, and is counted as one",
        "deadline": "a request that waits for another's call has a deadline of its own",
    }

    def __init__(self, next: Stage, spec: CacheSpec, answers: Answers, defaults: dict[str, Any]) -> None:
        """`defaults` are the values of fields that a body leaves out. Each instance keeps its answers apart: an answer
        of one chain's targets is not an answer of another chain's."""
        self.next = next
        self.spec = spec
        self.answers = answers
        self.defaults = defaults
        self._scope = answers.chains
        answers.chains += 1

    async def __call__(self, request: Request, context: Context) -> Result:
        key = self._key(request, context)
        if key is None:
            return await self.next(request, context)
        answers = self.answers
        answer = answers.get(key)
        if answer is not None:
            answers.hits += 1
            return answer.give(request, context, "hit")
        if not self.spec.single_flight:
            answers.misses += 1
            result = await self.next(request, context)
            self._keep(key, result, context)
            return result
        flight = answers.flight(key)
        if flight is None:
            return await self._lead(request, context, key, answers.take_off(key))
        try:
            outcome = await flight.wait(context)
        except asyncio.CancelledError:
            answers.settle(key, flight)
            raise
        if outcome is None:
            return await self._lead(request, context, key, flight)
        answers.shared += 1
        if isinstance(outcome, Answer):
            return outcome.give(request, context, "shared")
        context.record.cache, context.record.cost = "shared", 0.0
        raise copy(outcome) from outcome  # an exception raised twice collects both tracebacks

    async def _lead(self, request: Request, context: Context, key: bytes, flight: Flight) -> Result:
        """Makes the call, for all requests in line."""
        self.answers.misses += 1
        flight.follow(context)
        try:
            result = await self.next(request, context)
            answer = self._keep(key, result, context)
            if answer is None:
                flight.hand_over()
            else:
                flight.land(answer)
            return result
        except InferenceError as error:
            if error.kind in CALLERS_OWN:
                flight.hand_over()
            else:
                flight.land(error)
            raise
        except BaseException:
            flight.hand_over()
            raise
        finally:
            self.answers.settle(key, flight)

    def _keep(self, key: bytes, result: Result, context: Context) -> Answer | None:
        """Stores and returns the answer; None if the result is not an answer."""
        if result.body is None or result.error is not None:
            return None
        answer = Answer(msgspec.json.encode(result.body), copy(result.usage), tuple(context.record.warnings))
        self.answers.put(key, answer)
        return answer

    def _key(self, request: Request, context: Context) -> bytes | None:
        """Returns a key that equal requests share; None if the request is not cached."""
        if context.stream or (self.spec.only == "deterministic" and not self._deterministic(request)):
            return None
        body = request.body
        if any(name in body for name in _ASIDE):
            body = {name: value for name, value in body.items() if name not in _ASIDE}
        try:
            content = _encode(body)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None  # not JSON; the stage that sends it reports that
        head = f"{self._scope} {request.task} {context.order} "
        return blake2b(head.encode() + content, digest_size=32).digest()

    def _deterministic(self, request: Request) -> bool:
        body, defaults = request.body, self.defaults
        return (
            request.task == "embedding"
            or body.get("temperature", defaults.get("temperature")) == 0
            or body.get("seed", defaults.get("seed")) is not None
        )


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.cache
    if not spec.enabled:
        return None
    answers = context.resources.get(("cache",), lambda: Answers(spec, context.resources.clock))
    ttl = "" if spec.ttl_s is None else f" for {spec.ttl_s:g} s"
    settings = f"{spec.only} ≤{spec.max_entries} answers ≤{spec.max_bytes} bytes{ttl}"
    if spec.single_flight:
        settings += ", equal requests share a call"
    return Layer(Cache, {"spec": spec, "answers": answers, "defaults": context.target.model.parameters}, settings)
