"""A histogram of positive numbers in constant memory: any quantile within 1 % of the true value, and mergeable.

Source: DDSketch (Masson, Rim, Lee, VLDB 2019), section 2: with buckets (g^(i-1), g^i] and g = (1+e)/(1-e), the value
2g^i/(g+1) is within the relative error e of everything in bucket i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

ALPHA = 0.01
"""Relative error of a quantile."""

_GAMMA = (1 + ALPHA) / (1 - ALPHA)
_PER_LOG = 1 / math.log(_GAMMA)
_SMALLEST = 1e-9
"""Smaller values count as zero."""

_log = math.log
_ceil = math.ceil


class Histogram:
    """Counts in logarithmic buckets. A bucket a 2 %: from 1 µs to an hour there are about 1,100."""

    __slots__ = ("_buckets", "_zeros", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = 0.0
        self._zeros = 0
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Counts one value; a negative one counts as zero."""
        self.count += 1
        if value > _SMALLEST:
            self.sum += value
            bucket = _ceil(_log(value) * _PER_LOG)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        else:
            self._zeros += 1
            value = 0.0
        if value < self.min:
            self.min = value
        if value > self.max:
            self.max = value

    def merge(self, other: Histogram) -> None:
        """Adds the other's counts, as if every value had been added here."""
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self._zeros += other._zeros
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def quantile(self, share: float) -> float | None:
        """Returns the value at or below which `share` (0 to 1) of the values are; None if nothing was counted."""
        if not self.count:
            return None
        rank = share * (self.count - 1)
        seen = self._zeros
        if rank < seen:
            return 0.0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if rank < seen:
                return min(max(2 * _GAMMA**bucket / (_GAMMA + 1), self.min), self.max)
        return self.max

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """Returns how many values are at or below each of the rising bounds; values up to 2 % larger may be
        included."""
        counts = []
        seen = self._zeros
        buckets = sorted(self._buckets.items())
        place = 0
        for bound in bounds:
            limit = _ceil(_log(bound) * _PER_LOG)
            while place < len(buckets) and buckets[place][0] <= limit:
                seen += buckets[place][1]
                place += 1
            counts.append(seen)
        return counts

    def bars(self, most: int) -> list[tuple[float, float, int]]:
        """Returns the positive values in at most `most` classes of the same ratio: lower bound, upper bound, count."""
        if not self._buckets:
            return []
        first, last = min(self._buckets), max(self._buckets)
        width = _ceil((last - first + 1) / most)
        counts = [0] * _ceil((last - first + 1) / width)
        for bucket, count in self._buckets.items():
            counts[(bucket - first) // width] += count
        starts = (first - 1 + width * place for place in range(len(counts)))
        return [(_GAMMA**start, _GAMMA ** (start + width), n) for start, n in zip(starts, counts, strict=True)]

    def summary(self) -> dict[str, Any] | None:
        """Returns count, mean, extremes and the usual quantiles; None if nothing was counted."""
        if not self.count:
            return None
        return {
            "count": self.count,
            "mean": _short(self.sum / self.count),
            "min": _short(self.min),
            "p50": _short(self.quantile(0.5) or 0.0),
            "p95": _short(self.quantile(0.95) or 0.0),
            "p99": _short(self.quantile(0.99) or 0.0),
            "max": _short(self.max),
        }


def _short(value: float) -> float:
    return float(f"{value:.4g}")
