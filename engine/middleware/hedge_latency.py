"""The latency of a target's calls, and from it the time after which a call is slow. Used by the stage that hedges."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil

from engine.schemas.policy import HedgeSpec

_RECENT = 1000
"""Number of latencies behind a percentile."""

Kind = tuple[str, bool]
"""Task, and True for a stream: an embedding says nothing about a chat, a whole answer nothing about a first chunk."""


class Latencies:
    """The latest latencies of one kind of call, in seconds: any percentile at once, by the nearest rank."""

    __slots__ = ("_latest", "_sorted")

    def __init__(self, size: int) -> None:
        self._latest: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, seconds: float) -> None:
        if len(self._latest) == self._latest.maxlen:
            del self._sorted[bisect_left(self._sorted, self._latest[0])]
        self._latest.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float:
        return self._sorted[max(0, ceil(share * len(self._sorted)) - 1)]


class Pace:
    """The latency of one target, shared by all its requests."""

    def __init__(self, spec: HedgeSpec) -> None:
        self.spec = spec
        self.hedges = self.wins = 0
        self._latencies: dict[Kind, Latencies] = {}

    def delay_s(self, kind: Kind) -> float:
        """Returns the time that a call may take before the next one starts, in seconds."""
        spec, seen = self.spec, self._latencies.get(kind)
        if spec.percentile is None or seen is None or len(seen) < spec.min_samples:
            return spec.after_s
        return seen.quantile(spec.percentile)

    def add(self, kind: Kind, seconds: float) -> None:
        """Counts the duration of a call, or its lower bound."""
        seen = self._latencies.get(kind)
        if seen is None:
            seen = self._latencies[kind] = Latencies(max(_RECENT, self.spec.min_samples))
        seen.add(seconds)

    def gauges(self) -> dict[str, float]:
        delays = {
            f"hedge_{task}_{'stream_' if stream else ''}delay_s": self.delay_s((task, stream))
            for task, stream in self._latencies
        }
        return {"hedges_total": self.hedges, "hedge_wins_total": self.wins, **delays}
