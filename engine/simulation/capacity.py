"""The capacity of a provider: calls at once, and requests and tokens a minute for each key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.schemas.simulated import CapacitySpec

UNITS = ("requests", "tokens")
"""The units of a key's rates."""


class Bucket:
    """A token bucket. `level` refills at `rate` a second up to `size`."""

    __slots__ = ("level", "rate", "refilled_s", "size")

    def __init__(self, per_min: float, burst_s: float, now_s: float) -> None:
        self.rate = per_min / 60
        # A bucket smaller than one unit could never give one.
        self.size = max(1.0, self.rate * burst_s)
        self.level = self.size
        self.refilled_s = now_s

    def refill(self, now_s: float, share: float) -> None:
        """Brings the level to `now_s`; `share` is the part of the rate that was there."""
        self.level = min(self.size, self.level + self.rate * share * (now_s - self.refilled_s))
        self.refilled_s = now_s

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` is there, 0 if it is. More than a full bucket counts as a full one."""
        # A billionth is what rounding may leave missing after exactly the time that was waited for.
        missing = min(amount, self.size) - self.level
        return missing / self.rate if missing > 1e-9 else 0.0


class Level(NamedTuple):
    """The state of one limit of one key, as a provider's headers say it."""

    limit: int
    remaining: int
    reset_s: float
    """Until the limit is all there again, in seconds."""


class Capacity:
    """The limits of one provider, and who is in."""

    def __init__(self, spec: CapacitySpec, keys: Sequence[str], now_s: float) -> None:
        self.spec = spec
        self.in_flight = 0
        rates = (spec.requests_per_min, spec.tokens_per_min)
        self._buckets: dict[str, tuple[Bucket | None, Bucket | None]] = {}
        if rates != (None, None):
            for key in keys:
                requests, tokens = (None if rate is None else Bucket(rate, spec.burst_s, now_s) for rate in rates)
                self._buckets[key] = (requests, tokens)

    @property
    def limited(self) -> bool:
        """True if keys have rates."""
        return bool(self._buckets)

    def full(self, share: float) -> bool:
        """No room for one more call. At least one is always let in."""
        most = self.spec.concurrency
        return most is not None and self.in_flight >= max(1, int(most * share))

    def slowdown(self, share: float) -> float:
        """Returns the factor by which a call slows down now."""
        free = self.spec.full_speed
        return 1.0 if free is None else max(1.0, (self.in_flight + 1) / (free * share))

    def wait_s(self, key: str, tokens: int, now_s: float, share: float) -> tuple[str, float]:
        """Which of a key's rates holds a call of so many tokens back the longest, and for how many seconds; 0: the
        call passes now."""
        unit, wait_s = UNITS[0], 0.0
        for name, bucket, amount in zip(UNITS, self._buckets[key], (1, tokens), strict=True):
            if bucket is not None:
                bucket.refill(now_s, share)
                needed_s = bucket.wait_s(amount)
                if needed_s > wait_s:
                    unit, wait_s = name, needed_s
        return unit, wait_s

    def take(self, key: str, tokens: int) -> None:
        """Takes a call and its tokens out of a key's buckets."""
        for bucket, amount in zip(self._buckets[key], (1, tokens), strict=True):
            if bucket is not None:
                bucket.level -= amount

    def levels(self, key: str) -> dict[str, Level]:
        """The state of a key's limits, by `requests` and `tokens`; empty without limits."""
        found = {}
        for name, bucket in zip(UNITS, self._buckets.get(key, ()), strict=False):
            if bucket is not None:
                missing = max(0.0, bucket.size - bucket.level)
                found[name] = Level(round(bucket.rate * 60), max(0, int(bucket.level)), missing / bucket.rate)
        return found
