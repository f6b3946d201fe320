"""The times between the calls of a job, and for how long something may be missing."""

from __future__ import annotations

import asyncio

from engine.core.clock import Clock
from engine.schemas.policy import JobSpec


class Pause:
    """Waits that grow from `poll_s` to `poll_max_s`."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._next = spec.poll_s

    async def wait(self, least_s: float = 0.0) -> None:
        wait_s, self._next = self._next, min(self._next * self._spec.poll_factor, self._spec.poll_max_s)
        await asyncio.sleep(max(wait_s, least_s))

    def reset(self) -> None:
        self._next = self._spec.poll_s


class Absence:
    """Time for which the provider has said without a break that it does not know something."""

    def __init__(self, clock: Clock, settle_s: float) -> None:
        self._clock = clock
        self._settle_s = settle_s
        self._since: float | None = None

    def end(self) -> None:
        """It is there."""
        self._since = None

    def lasts(self) -> bool:
        """It is not there: True when that has been so for `settle_s` seconds."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= self._settle_s
