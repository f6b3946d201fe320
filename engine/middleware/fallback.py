"""The next target after one has failed for good; and, when none is left, the wait for a circuit to close."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.core.clock import Clock
from engine.core.errors import FAILURES, CircuitOpen, ConfigError, InferenceError, nearest
from engine.core.pipeline import Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.schemas.policy import PolicySpec


class Fallback(Middleware):
    """Tries the branches in order. The error of the last branch is the request's, the earlier ones are in its attempts.

    `too_long` moves on only to a branch whose context is known to be larger. If all remaining branches have an open
    circuit, and `policy.breaker.on_open` is wait, the request waits for the first one that may close; that costs no
    attempt. Without a patient caller it waits for twice as many openings as there are tries.
    """

    name = "fallback"
    why = "after a target's retries are spent, or at once for a failure that no retry can help"
    wraps = {"retry": "the next target is for failures that retries could not fix"}

    def __init__(
        self,
        branches: Sequence[Stage],
        names: Sequence[str],
        windows: Sequence[int | None],
        policy: PolicySpec,
        clock: Clock,
    ) -> None:
        """`windows` are the branches' context lengths in tokens, None where unknown.

        Raises ConfigError when `policy.fallback.on` has a word that is not in the failure vocabulary.
        """
        for word in policy.fallback.on:
            if word not in FAILURES:
                raise ConfigError(f"policy.fallback.on: {word!r} is not a failure; {nearest(word, FAILURES)}")
        self.branches = tuple(branches)
        self.names = tuple(names)
        self.windows = tuple(windows)
        self.on = frozenset(policy.fallback.on)
        self.clock = clock
        self.waits = policy.breaker.enabled and policy.breaker.on_open == "wait"
        self.max_openings = 2 * (1 + policy.retry.max_retries) if policy.retry.enabled else 2
        self._order = tuple(range(len(self.branches)))

    async def __call__(self, request: Request, context: Context) -> Result:
        order = self._order if context.order is None else context.order
        openings = 0
        while True:
            rejections: dict[int, CircuitOpen] = {}
            try:
                return await self._first_that_can(request, context, order, rejections)
            except InferenceError:
                if not rejections or not self.waits:
                    raise
                # While probes are in flight their result is open: only an opening counts.
                openings += not any(rejection.probing for rejection in rejections.values())
                # A circuit opened by hand gives no time.
                delays = [each.retry_after_s for each in rejections.values() if each.retry_after_s is not None]
                delay = min(delays, default=None)
                if delay is None:
                    raise
                late = context.deadline is not None and self.clock.monotonic() + delay >= context.deadline
                if late or (openings > self.max_openings and not context.patient):
                    raise
            await _until_one_may_close(list(rejections.values()), delay)
            order = tuple(rejections)

    async def _first_that_can(
        self, request: Request, context: Context, order: tuple[int, ...], rejections: dict[int, CircuitOpen]
    ) -> Result:
        """Returns the first branch's result. Raises the last branch's error, and notes the open circuits worth a
        wait."""
        places = list(order)
        while True:
            place = places.pop(0)
            try:
                result = await self.branches[place](request, context)
                if places and result.stream is not None:
                    await result.stream.prime()
                return result
            except InferenceError as error:
                if isinstance(error, CircuitOpen):
                    rejections[place] = error
                elif error.kind == "too_long":
                    places = [other for other in places if self._larger(other, place)]
                    for other in [other for other in rejections if not self._larger(other, place)]:
                        del rejections[other]
                elif error.kind not in self.on:
                    rejections.clear()
                if (places or rejections) and context.spent:
                    rejections.clear()
                    raise
                if not places or error.kind not in self.on:
                    raise
                context.last_key = context.last_endpoint = None
                context.next_attempt("fallback", f"{self.names[place]} failed: {error.kind}")

    def after(self, name: str) -> tuple[int, ...]:
        """Returns the branches in order, from the one after `name` round to `name` itself."""
        place = self.names.index(name) + 1
        return (*self._order[place:], *self._order[:place])

    def starting(self, name: str) -> tuple[int, ...]:
        """Returns the branches in order, from `name` round to the one before it."""
        place = self.names.index(name)
        return (*self._order[place:], *self._order[:place])

    def _larger(self, other: int, than: int) -> bool:
        window, exceeded = self.windows[other], self.windows[than]
        return window is not None and exceeded is not None and window > exceeded


async def _until_one_may_close(rejections: list[CircuitOpen], delay_s: float) -> None:
    """Sleeps until the first circuit may be tried; while probes are in flight, until they have ended."""
    changes = [rejection.change for rejection in rejections if rejection.change is not None]
    if not changes:
        await asyncio.sleep(delay_s)
        return
    times = [rejection.known_in_s if rejection.probing else rejection.retry_after_s for rejection in rejections]
    limit = min((time for time in times if time is not None), default=None)
    await asyncio.wait(changes, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
