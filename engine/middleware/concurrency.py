"""An adaptive limit on calls in flight: as many as the provider takes, found out by how it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from engine.clock import Clock
from engine.errors import InferenceError
from engine.middleware import Branch
from engine.pipeline import Layer, Middleware, Stage
from engine.request import Context, Request, Result
from schemas.policy import ConcurrencySpec

GROWTH = 0.4
"""C of RFC 9438 (CUBIC), section 5: calls per cubic second."""
USED = 0.8
"""Share of the limit that must be in use for an answer to prove that there is room for more."""
SAYS_NO = frozenset({"throttled", "overloaded"})
"""Failures that shrink the limit. Others say nothing about how many are too many."""


@dataclass(slots=True)
class Permit:
    """The right to have one call in flight, from the time when the limit had been cut `epoch` times."""

    epoch: int


class AdaptiveLimit:
    """Slow start, then the CUBIC curve of RFC 9438 with the policy's back-off. Lives on one event loop.

    A burst of refusals is one refusal: a permit that was given before a cut can't cut again. Growth needs a limit that
    is in use, and pauses after failures. The waiting are served in the order of arrival.
    """

    def __init__(self, spec: ConcurrencySpec, clock: Clock) -> None:
        self.spec = spec
        self.limit = float(min(max(spec.initial, spec.minimum), spec.maximum))
        self.in_flight = 0
        self.epoch = 0
        self._clock = clock
        self._line: deque[asyncio.Future[Permit]] = deque()
        self._slow_start = True
        self._peak = 0.0
        self._cut_at = 0.0
        self._frozen_until = 0.0

    @property
    def waiting(self) -> int:
        """Those in line who still want their turn."""
        return sum(not turn.done() for turn in self._line)

    async def acquire(self) -> Permit:
        """Waits for room."""
        if self.in_flight < int(self.limit) and not self._line:
            self.in_flight += 1
            return Permit(self.epoch)
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.in_flight -= 1
                self._serve()
            raise

    def release(self, permit: Permit, error: InferenceError | None, *, ignored: bool = False) -> None:
        """Gives the permit back and learns from the outcome; `ignored`: there is nothing to learn (cancelled)."""
        used = self.in_flight >= USED * int(self.limit)
        self.in_flight -= 1
        now = self._clock.monotonic()
        if error is not None and error.kind in SAYS_NO:
            if permit.epoch == self.epoch:
                self._cut(now)
        elif error is not None and error.counts_for_breaker:
            self._frozen_until = max(self._frozen_until, now + self.spec.freeze_s)
        elif error is None and not ignored and used and now >= self._frozen_until and permit.epoch == self.epoch:
            self._grow(now)
        self._serve()

    def _cut(self, now: float) -> None:
        self.epoch += 1
        self._slow_start = False
        self._peak, self._cut_at = self.limit, now
        self.limit = max(float(self.spec.minimum), self.limit * self.spec.backoff)

    def _grow(self, now: float) -> None:
        if self._slow_start:
            self.limit += 1.0  # every answer of a round makes room for one more: doubles from round to round
        else:
            back = (self._peak * (1 - self.spec.backoff) / GROWTH) ** (1 / 3)
            curve = GROWTH * (now - self._cut_at - back) ** 3 + self._peak
            self.limit += max(0.0, curve - self.limit) / self.limit
        self.limit = min(self.limit, float(self.spec.maximum))

    def _serve(self) -> None:
        while self._line and self.in_flight < int(self.limit):
            turn = self._line.popleft()
            if turn.done():
                continue  # cancelled while it waited
            self.in_flight += 1
            # The permit is of the time when it is given, not of the time when its task wakes up.
            turn.set_result(Permit(self.epoch))


class Concurrency(Middleware):
    """Holds a permit for as long as a call, or its stream, is in flight."""

    name = "concurrency"
    why = "next to the call, so that it measures what is truly in flight"
    wrapped_by = {
        "queue": "it may let fewer through than the queue, never more",
        "rate_limit": "no permit is held while a call waits for its tokens",
    }
    wraps = {"breaker": "a rejection by the breaker gives the permit back"}

    def __init__(self, next: Stage, limit: AdaptiveLimit) -> None:
        self.next = next
        self.limit = limit

    async def __call__(self, request: Request, context: Context) -> Result:
        limit = self.limit
        permit = await limit.acquire()
        try:
            result = await self.next(request, context)
        except InferenceError as error:
            limit.release(permit, error)
            raise
        except BaseException:
            limit.release(permit, None, ignored=True)
            raise
        if result.stream is None:
            limit.release(permit, None)
        else:
            result.stream.on_settle(lambda error: limit.release(permit, error))
        return result


def layer(branch: Branch) -> Layer | None:
    spec = branch.policy.concurrency
    if not spec.enabled or branch.target.provider.kind == "local":
        return None
    limit = branch.resources.get(("concurrency", branch.name), lambda: AdaptiveLimit(spec, branch.resources.clock))
    return Layer(
        Concurrency, {"limit": limit}, f"from {spec.initial}, {spec.minimum}–{spec.maximum}, ×{spec.backoff:g} on a no"
    )
