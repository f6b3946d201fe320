"""Counts the calls of a simulated provider, to compare with its callers' records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class KeyCounters:
    """Of one key."""

    calls: int = 0
    served: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Counters:
    """Of a provider. `calls` = `served` + all `refused` + `left` + those that are being answered."""

    calls: int = 0
    served: int = 0
    """Answered to the end."""
    refused: dict[str, int] = field(default_factory=dict)
    """Got no whole answer, by the kind of the fault; a limit counts as the refusal that it gives."""
    left: int = 0
    """Would have been answered, but the caller left before."""
    input_tokens: int = 0
    """Of the calls that were served."""
    output_tokens: int = 0
    """Of the calls that were served."""
    served_s: float = 0.0
    """Time that served calls took, summed up, in seconds. Over a span, divided by the capacity, it is the goodput."""
    in_flight: int = 0
    peak_in_flight: int = 0
    keys: dict[str, KeyCounters] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as `/simulated/counters` shows it."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "keys"}
        return {**plain, "keys": {name: key.as_dict() for name, key in self.keys.items()}}
