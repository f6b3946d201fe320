"""Chooses the endpoint and the key of an attempt, and keeps the attempt's record."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.core import token_estimate
from engine.core.clock import Clock
from engine.core.errors import Cancelled, CircuitOpen, EngineError, InferenceError, Internal
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.prices import Prices
from engine.core.request import Attempt, Context, Request, Result
from engine.core.stream import ChunkStream
from engine.core.usage import Usage
from engine.middleware.layer_context import LayerContext
from engine.middleware.parameters import follows
from engine.middleware.route_keys import KeyRing
from engine.schemas.policy import RouteSpec

_UNSAID = frozenset({"timeout", "truncated", "malformed", "cancelled", "deadline"})
"""Failures after which the provider may have counted tokens that it never reported."""


class Endpoints:
    """The addresses of one target: the next one, and the calls that each has in flight."""

    def __init__(self, count: int, spec: RouteSpec) -> None:
        self.in_flight = [0] * count
        self.spec = spec
        self.last_failure = ""
        """Kind and message of the last failed attempt, for reports of a run without progress."""
        self.failed_at = -math.inf
        """Its time, on the engine's clock."""
        self._turn = 0

    def choose(self, avoid: int | None, rejected: set[int]) -> int:
        """Returns an endpoint that is not in `rejected`, and not `avoid` if there is another."""
        free = [index for index in range(len(self.in_flight)) if index not in rejected]
        if len(free) > 1 and avoid in free:
            free.remove(avoid)
        if self.spec.endpoints == "least_loaded":
            fewest = min(self.in_flight[index] for index in free)
            free = [index for index in free if self.in_flight[index] == fewest]
        self._turn += 1
        return free[self._turn % len(free)]

    def gauges(self) -> dict[str, float]:
        return {f"endpoint_{index}_in_flight": count for index, count in enumerate(self.in_flight)}


class Route(Middleware):
    """Keeps one record an attempt. A key that is refused or used up is parked, and another one is used at once."""

    name = "route"
    why = "after the queue, so that the key is chosen just before the call"
    wrapped_by = {"queue": "a key chosen before a wait may be parked when its turn comes"}
    wraps = {"breaker": "a rejected attempt comes back here for another endpoint"}

    def __init__(
        self,
        next: Stage,
        target: str,
        ring: KeyRing,
        endpoints: Endpoints,
        names: tuple[str, ...],
        prices: Prices,
        clock: Clock,
    ) -> None:
        """`names` are the endpoints' addresses, in the order of `endpoints`."""
        self.next = next
        self.target = target
        self.ring = ring
        self.endpoints = endpoints
        self.names = names
        self.prices = prices
        self.clock = clock
        self._choice = len(ring.names) > 1

    async def __call__(self, request: Request, context: Context) -> Result:
        if context.on_first_attempt is not None:
            context.on_first_attempt()
        ring, rejected = self.ring, None
        while True:
            key = ring.try_acquire(context.last_key)
            if key is None and ring.names:
                key = await ring.acquire(context.last_key)
            before = context.attempt
            attempt = self._begin(context, key, rejected)
            started = self.clock.monotonic()
            attempt.started_s = started - context.submitted_at
            try:
                result = await self.next(request, context)
            except CircuitOpen:
                self._withdraw(context, attempt, before)
                rejected = (rejected or set()) | {attempt.place}
                if len(rejected) < len(self.names):
                    continue
                raise
            except InferenceError as error:
                others = self._finish(request, context, attempt, started, error)
                if error.parks_key and others:
                    context.next_attempt("retry", f"{key} was refused: {error.kind}")
                    continue
                raise
            except (
                Exception
            ) as error:  # the boundary: a model that can't be loaded, or a defect, fails this target only
                what = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                failure = Internal(what)
                self._finish(request, context, attempt, started, failure)
                raise failure from error
            except BaseException:
                self._finish(request, context, attempt, started, Cancelled("its caller left, or its time was over"))
                raise
            if result.stream is None:
                attempt.usage = result.usage
                self._finish(request, context, attempt, started, None)
            else:
                self._follow(request, result.stream, attempt, started, context)
            return result

    def _begin(self, context: Context, key: str | None, rejected: set[int] | None) -> Attempt:
        why = context.why
        if self._choice:
            how = f"{key} by {self.ring.spec.keys}"
            why = how if why is None else f"{why}; {how}"
        attempt = Attempt(self.target, key, context.role, why)
        if len(self.names) > 1:
            attempt.place = self.endpoints.choose(context.last_endpoint, rejected or set())
            self.endpoints.in_flight[attempt.place] += 1
            attempt.endpoint = self.names[attempt.place]
        context.role, context.why = "first", None
        context.record.attempts.append(attempt)
        context.attempt = attempt
        return attempt

    def _withdraw(self, context: Context, attempt: Attempt, before: Attempt | None) -> None:
        """Removes a record: nothing was tried. `before` is the attempt before it."""
        record = context.record
        record.attempts = [each for each in record.attempts if each is not attempt]
        context.role, context.why = attempt.role, attempt.why
        context.attempt = before
        self._release(attempt)

    def _follow(
        self, request: Request, stream: ChunkStream, attempt: Attempt, started: float, context: Context
    ) -> None:
        def first() -> None:
            attempt.first_token_s = self.clock.monotonic() - started

        def settled(error: InferenceError | None) -> None:
            # An empty answer has up to three chunks: its role, its end and its usage.
            written = stream.delivered if stream.delivered > 3 else 0
            usage = token_estimate.completed(stream.usage, request.task, request.body, written)
            attempt.usage = stream.usage = usage
            if usage is None and error is not None and stream.delivered:
                attempt.usage = Usage(token_estimate.input_tokens(request.body), stream.delivered, estimated=True)
            elif usage is not None and usage.estimated:
                # Counted at the stream's start, and never again.
                attempt.usage = replace(usage, output_tokens=max(usage.output_tokens, stream.delivered))
            self._finish(request, context, attempt, started, error)

        if stream.primed:
            first()
        else:
            stream.on_first(first)
        stream.on_settle(settled)

    def _finish(
        self, request: Request, context: Context, attempt: Attempt, started: float, error: InferenceError | None
    ) -> bool:
        """Closes a record and releases its key and endpoint. True: the key failed, and others are left."""
        attempt.duration_s = self.clock.monotonic() - started
        key = attempt.key
        if error is None:
            attempt.outcome = "ok"
            if attempt.usage is not None:
                attempt.cost = self.prices.cost(request.body, attempt.usage)
            if key is not None:
                self.ring.succeeded(key, started)
            self._release(attempt)
            return False
        attempt.outcome = error.kind
        attempt.message = error.message
        if error.kind != "cancelled":
            self.endpoints.last_failure = f"{error.kind}: {error.message}"
            self.endpoints.failed_at = started + attempt.duration_s
        attempt.status = error.status if error.status is not None else attempt.status
        attempt.provider_request_id = error.provider_request_id or attempt.provider_request_id
        attempt.usage = error.usage or attempt.usage
        if attempt.sent and attempt.usage is None and error.kind in _UNSAID:
            attempt.usage = Usage(token_estimate.input_tokens(request.body), estimated=True)
        if attempt.usage is not None:
            attempt.cost = self.prices.cost(request.body, attempt.usage)
        context.last_key, context.last_endpoint = key, attempt.place
        error.elsewhere = len(self.names) > 1 and error.counts_for_breaker
        others = False
        # Before the release: a request that waits for a key must not get this one.
        if key is not None and error.kind == "throttled":
            others = error.elsewhere = self.ring.throttled(key, started, error.retry_after_s)
        elif key is not None and error.parks_key:
            others = self.ring.refused(key, error, request.id or "")
        self._release(attempt)
        return others

    def _release(self, attempt: Attempt) -> None:
        self.ring.release(attempt.key)
        if len(self.names) > 1:
            self.endpoints.in_flight[attempt.place] -= 1


def layer(context: LayerContext) -> Layer:
    spec = context.policy.route
    target, resources = context.name, context.resources
    ring = resources.get(("keys", target), lambda: KeyRing(context.keys, spec, resources.clock))
    names = context.endpoints
    endpoints = resources.get(("endpoints", target), lambda: Endpoints(len(names), spec))
    settings = f"target={target}"
    if ring.names:
        settings += f" keys={len(ring.names)} {spec.keys}"
    if len(names) > 1:
        settings += f" endpoints={len(names)} {spec.endpoints}"
    return Layer(
        Route,
        {
            "target": target,
            "ring": ring,
            "endpoints": endpoints,
            "names": names,
            "prices": resources.get(("prices", target), lambda: Prices(context.target, follows(context))),
            "clock": resources.clock,
        },
        settings,
    )
