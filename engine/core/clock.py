"""Time and randomness, injected wherever they are used."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic` for durations, `wall` for what is written down. Both in seconds."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks. `monotonic` is the one that asyncio's timers use."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


Rng = random.Random
"""Every random choice takes one of these, seeded from the run spec."""
