"""An adaptive limit on calls in flight: as many as the provider takes, learned from its replies."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from engine.core.clock import Clock
from engine.core.errors import InferenceError
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.middleware.breaker import breakers_of
from engine.middleware.layer_context import LayerContext
from engine.schemas.policy import ConcurrencySpec

GROWTH = 0.4
"""C of RFC 9438 (CUBIC), section 5: calls per cubic second."""
PROBE_CALLS = 50
"""Calls at least from a refusal until the limit is back at its old value: each probe beyond it costs a refusal."""
NEAR = 1 / 4
"""The share of the last refusal's cut that may still be missing, so that the next refusal means "just too many"."""
GENTLE = 1 / 4
"""Power of the policy's back-off that such a refusal applies."""
USED = 0.8
"""Share of the limit that must be in use for an answer to prove that there is room for more."""
SAYS_NO = frozenset({"throttled", "overloaded"})
"""Failures that shrink the limit. Others say nothing about the limit."""
HEADROOM = 1.25
"""The factor by which calls may begin faster than one after another: Linux paces TCP the same way after slow start."""
CATCH_UP = 0.2
"""Share of a call's duration by which starts may fall behind their pace, and catch up."""
EASE = 0.9
"""Factor on the limit when only the latency shows that it is too high; a refusal cuts more."""
SMOOTHING = 0.2
"""Weight of the newest latency in the moving average."""
RECENT = 1 / 32
"""Weight of the newest outcome in the share of failed calls."""
FORGET = 1.001
"""Growth of the best latency with each answer, so that it does not bind a provider that became slower for good."""


@dataclass(slots=True)
class Permit:
    """The right to have one call in flight, given after `epoch` cuts of the limit."""

    epoch: int
    started: float
    """Monotonic seconds."""


class AdaptiveLimit:
    """Slow start, then the CUBIC curve of RFC 9438 with the policy's back-off, slowed down where calls are so few or so
    long that it would probe too often. Lives on one event loop.

    A burst of refusals is one refusal: a permit that was given before a cut can't cut again. Growth needs a limit that
    is in use, and pauses after a failure while failures are frequent. If a latency tolerance is set, an average latency
    above that multiple of the best one eases the limit, once a round. Waiting calls are served in the order of arrival.

    After the first refusal calls are paced: a quota is a number of calls a minute, whatever is in flight, and calls
    that end together must not begin together.
    """

    def __init__(self, spec: ConcurrencySpec, clock: Clock) -> None:
        self.spec = spec
        self.maximum = spec.maximum
        self.limit = float(min(max(spec.initial, spec.minimum), spec.maximum))
        self.in_flight = 0
        self.epoch = 0
        self._clock = clock
        self._line: deque[asyncio.Future[Permit]] = deque()
        self._slow_start = True
        self._peak: float
        self._lost: float
        self._cut_at: float
        self._frozen_until = 0.0
        self._failing = 0.0
        """Share of the recent calls that failed without a refusal."""
        self._latency_s: float | None = None
        self._best_s = float("inf")
        self._mean_s: float | None = None
        """The duration of a successful call."""
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Returns the waiting calls that are not cancelled."""
        return sum(not turn.done() for turn in self._line)

    @property
    def _paced(self) -> bool:
        """Spares a provider bursts only once it has refused a call."""
        return not self._slow_start

    def try_acquire(self) -> Permit | None:
        """Returns a permit if there is room now and no caller waits."""
        if self._line or self.in_flight >= round(self.limit):
            return None
        now = self._clock.monotonic()
        if self._paced and self._next_at > now:
            return None
        return self._give(now)

    async def acquire(self) -> Permit:
        """Waits for room."""
        permit = self.try_acquire()
        if permit is not None:
            return permit
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        if self._paced:
            self._serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.in_flight -= 1
                self._serve()
            raise

    def restart(self) -> None:
        """Starts slowly again: the provider is back after an outage, and cold."""
        self.epoch += 1
        self._slow_start = True
        self.limit = float(min(max(self.spec.initial, self.spec.minimum), self.spec.maximum))
        self._best_s, self._latency_s = float("inf"), None

    def release(
        self,
        permit: Permit,
        error: InferenceError | None,
        *,
        ignored: bool = False,
        latency_s: float | None = None,
    ) -> None:
        """Gives the permit back and learns from the outcome; `ignored`: the outcome teaches nothing (cancelled).

        `latency_s` is a success's, to its first token or for each token.
        """
        used = self.in_flight >= USED * round(self.limit)
        self.in_flight -= 1
        now = self._clock.monotonic()
        if error is not None and error.kind in SAYS_NO:
            self._refused(now, permit)
        elif error is not None and error.counts_for_breaker:
            self._failing += (1.0 - self._failing) * RECENT
            if self._failing >= self.spec.freeze_share:
                self._frozen_until = max(self._frozen_until, now + self.spec.freeze_s)
        elif error is None and not ignored and permit.epoch == self.epoch:
            self._failing -= self._failing * RECENT
            took = now - permit.started
            self._mean_s = took if self._mean_s is None else self._mean_s + SMOOTHING * (took - self._mean_s)
            if latency_s is not None and self.spec.latency_tolerance is not None and self._too_slow(latency_s):
                self._cut(now, EASE)
            elif used and now >= self._frozen_until:
                self._grow(now)
        if self._line:
            self._serve()

    def gauges(self) -> dict[str, float]:
        return {
            "concurrency_limit": round(self.limit),
            "concurrency_in_flight": self.in_flight,
            "concurrency_waiting": self.waiting,
            "concurrency_cuts": self.epoch,
        }

    def _too_slow(self, latency_s: float) -> bool:
        before = self._latency_s
        self._latency_s = latency_s if before is None else before + SMOOTHING * (latency_s - before)
        self._best_s = min(self._best_s * FORGET, latency_s)
        return self._latency_s > (self.spec.latency_tolerance or 0.0) * self._best_s

    def _refused(self, now: float, permit: Permit) -> None:
        if permit.epoch == self.epoch:
            gently = not self._slow_start and self.limit >= self._peak * (1 - NEAR * self._lost)
            self._cut(now, self.spec.backoff**GENTLE if gently else self.spec.backoff)

    def _cut(self, now: float, left: float) -> None:
        self.epoch += 1
        self._slow_start = False
        self._peak, self._lost, self._cut_at = self.limit, 1 - left, now
        self.limit = max(float(self.spec.minimum), self.limit * left)

    def _grow(self, now: float) -> None:
        if self._slow_start:
            self.limit += 1.0  # every answer of a round makes room for one more: doubles from round to round
        else:
            lost = self._peak * self._lost
            back_s = (lost / GROWTH) ** (1 / 3)
            if self._mean_s is not None:
                back_s = max(back_s, PROBE_CALLS * self._mean_s / self._peak)
            since = now - self._cut_at - back_s
            # The way back takes `back_s`, however small the cut; beyond the peak the curve is the RFC's.
            curve = self._peak + (GROWTH * since**3 if since > 0 else lost * (since / back_s) ** 3)
            # As in the RFC: at most half as much again in a round.
            self.limit += max(0.0, min(curve, 1.5 * self.limit) - self.limit) / self.limit
        self.limit = min(self.limit, float(self.maximum))

    def _give(self, now: float) -> Permit:
        """Returns a permit of the epoch in which it is given, not of that in which its task wakes up."""
        self.in_flight += 1
        if self._paced and self._mean_s is not None:
            # Starts that fell behind catch up, within limits.
            since = max(self._next_at, now - CATCH_UP * self._mean_s)
            self._next_at = since + self._mean_s / (HEADROOM * self.limit)
        return Permit(self.epoch, now)

    def _serve(self) -> None:
        now = self._clock.monotonic()
        while self._line and self.in_flight < round(self.limit):
            if self._line[0].done():
                self._line.popleft()  # cancelled while it waited
            elif self._paced and self._next_at > now + 1e-9:
                self._wake_at(self._next_at - now)
                return
            else:
                self._line.popleft().set_result(self._give(now))

    def _wake_at(self, delay_s: float) -> None:
        """Sets the one timer for the next start."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._serve()


class Concurrency(Middleware):
    """Holds a permit for as long as a call, or its stream, is in flight."""

    name = "concurrency"
    why = "next to the call, so that it measures what is truly in flight"
    wrapped_by = {
        "queue": "it may let fewer through than the queue, never more",
        "rate_limit": "no permit is held while a call waits for its tokens",
    }
    wraps = {"breaker": "a rejection by the breaker gives the permit back"}

    def __init__(self, next: Stage, limit: AdaptiveLimit, clock: Clock) -> None:
        self.next = next
        self.limit = limit
        self.clock = clock
        self._timed = limit.spec.latency_tolerance is not None

    async def __call__(self, request: Request, context: Context) -> Result:
        limit = self.limit
        permit = limit.try_acquire() or await limit.acquire()
        started = self.clock.monotonic() if self._timed else 0.0
        try:
            result = await self.next(request, context)
        except InferenceError as error:
            limit.release(permit, error)
            raise
        except BaseException:
            limit.release(permit, None, ignored=True)
            raise
        stream = result.stream
        if stream is not None:
            attempt = context.attempt
            stream.on_settle(
                lambda error: limit.release(permit, error, latency_s=attempt.first_token_s if attempt else None)
            )
        elif self._timed:
            limit.release(permit, None, latency_s=_per_token(self.clock.monotonic() - started, result))
        else:
            limit.release(permit, None)
        return result


def _per_token(seconds: float, result: Result) -> float | None:
    """Returns a call's seconds for each token; a long answer is not a slow one."""
    return seconds / max(1, result.usage.output_tokens or 1) if result.usage is not None else None


def layer(context: LayerContext) -> Layer | None:
    spec = context.policy.concurrency
    if not spec.enabled or context.target.provider.kind == "local":
        return None
    clock = context.resources.clock
    limit = context.resources.get(("concurrency", context.name), lambda: AdaptiveLimit(spec, clock))
    for breaker in breakers_of(context):
        breaker.on_close.append(limit.restart)
    settings = f"from {spec.initial}, {spec.minimum}–{spec.maximum}, ×{spec.backoff:g} on a no"
    return Layer(Concurrency, {"limit": limit, "clock": clock}, settings)
