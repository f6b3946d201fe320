"""Pauses between the calls of a job, and time limits for missing objects."""

from __future__ import annotations

import asyncio

from engine.core.clock import Clock
from engine.schemas.policy import JobSpec


class Pause:
    """Pauses that grow from `poll_s` to `poll_max_s`."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._next = spec.poll_s

    async def wait(self, least_s: float = 0.0) -> None:
        wait_s, self._next = self._next, min(self._next * self._spec.poll_factor, self._spec.poll_max_s)
        await asyncio.sleep(max(wait_s, least_s))

    def reset(self) -> None:
        self._next = self._spec.poll_s


class Absence:
    """The time for which the provider has reported, without a break, that it does not know an object."""

    def __init__(self, clock: Clock, settle_s: float) -> None:
        self._clock = clock
        self._settle_s = settle_s
        self._since: float | None = None

    def end(self) -> None:
        """Notes that the object is there."""
        self._since = None

    def lasts(self) -> bool:
        """Notes that the object is missing: True when it has been for `settle_s` seconds."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= self._settle_s
