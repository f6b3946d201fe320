"""The schedule of `provider.faults`: the faults at a point in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from engine.schemas.simulated import FaultSpec


@dataclass(slots=True)
class Conditions:
    """The faults of one call."""

    share: float = 1.0
    """Of the capacity that is there."""
    slow_s: float = 0.0
    """Added to the time to the first token, in seconds."""
    stall: FaultSpec | None = None
    """A pause in the answer."""
    fault: FaultSpec | None = None
    """The reason why the call gets no whole answer; None: it gets one."""
    left_s: float | None = None
    """Seconds until `fault` is over; None: never."""


CALM = Conditions()
"""Nothing goes wrong. Never changed."""


class Schedule:
    """The faults of a provider, in order. Times are in seconds since its start."""

    def __init__(self, faults: Sequence[FaultSpec]) -> None:
        self._faults = tuple(faults)

    def conditions(self, now_s: float, key: str, stream: bool, rng: Random) -> Conditions:
        """Returns the faults of a call at `now_s`. Of several faults that spoil a call the first one counts."""
        if not self._faults:
            return CALM
        found = CALM
        for fault in self._faults:
            if not _active(fault, now_s) or (fault.key is not None and fault.key != key):
                continue
            if fault.rate < 1.0 and rng.random() >= fault.rate:
                continue
            if fault.kind == "unterminated" and not stream:
                continue  # only a stream has a terminator
            if found is CALM:
                found = Conditions()
            _add(fault, now_s, found)
        return found


def _add(fault: FaultSpec, now_s: float, found: Conditions) -> None:
    if fault.kind == "brownout":
        found.share *= fault.share
    elif fault.kind == "slow":
        found.slow_s += fault.delay_s
    elif fault.kind == "stall":
        found.stall = found.stall or fault
    elif found.fault is None:
        found.fault = fault
        found.left_s = _left_s(fault, now_s)


def _active(fault: FaultSpec, now_s: float) -> bool:
    if now_s < fault.from_s or (fault.to_s is not None and now_s >= fault.to_s):
        return False
    if fault.every_s is None or fault.for_s is None:
        return True
    return (now_s - fault.from_s) % fault.every_s < fault.for_s


def _left_s(fault: FaultSpec, now_s: float) -> float | None:
    """Seconds until an active fault is over, at least for now; None: never."""
    ends = [] if fault.to_s is None else [fault.to_s - now_s]
    if fault.every_s is not None and fault.for_s is not None and fault.for_s < fault.every_s:
        ends.append(fault.for_s - (now_s - fault.from_s) % fault.every_s)
    return min(ends, default=None)
