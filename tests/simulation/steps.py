"""A clock that a test moves by hand, and a provider on it. What the tests of the decision share."""

from __future__ import annotations

from typing import Any

from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.provider import Plan, SimulatedProvider


class HandClock:
    """Both clocks, in seconds; they stand still until a test moves `now_s`. The wall clock starts in 2023."""

    epoch_s = 1_700_000_000.0

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.epoch_s + self.now_s


class Desk:
    """Asks a provider, at the time that a test has set."""

    def __init__(self, seed: int = 0, **spec: Any) -> None:
        self.clock = HandClock()
        self.provider = SimulatedProvider(SimulatedProviderSpec(kind="simulated", **spec), self.clock, seed)

    def ask(self, at_s: float | None = None, key: str | None = None, **call: Any) -> Plan:
        """A call of 2 prompt tokens that stays until it is left."""
        if at_s is not None:
            self.clock.now_s = at_s
        return self.provider.admit(key, call.pop("input_tokens", 2), call.pop("output_limit", None), **call)

    def serve(self, at_s: float | None = None, key: str | None = None, **call: Any) -> Plan:
        """A call that ends at once."""
        plan = self.ask(at_s, key, **call)
        self.provider.leave(plan, answered=True)
        return plan

    def refusal(self, at_s: float | None = None, key: str | None = None, **call: Any) -> str | None:
        """Why a call that ends at once was refused, in a word; None where it was not."""
        failure = self.serve(at_s, key, **call).failure
        return failure.kind if failure else None
