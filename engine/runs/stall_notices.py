"""Reports, while a run keeps trying, why it makes no progress."""

from __future__ import annotations

from collections.abc import Callable

from engine.core.resources import Resources
from engine.runs.in_flight import InFlight

QUIET_S = 10.0
"""Time without progress before the first notice, in seconds; each next interval is three times as long."""


def holding(resources: Resources) -> list[str]:
    """Names each key and rate limit that calls wait for now, with its target."""
    limiters = [*resources.items("keys").items(), *resources.items("rate_limit").items()]
    return [f"{name[1]}: {held}" for name, limiter in limiters if (held := limiter.holding()) is not None]


async def tell(serving: InFlight, resources: Resources, say: Callable[[str], None]) -> None:
    """Runs until it is cancelled. Calls that only take long are not reported, only their errors and waits."""
    quiet_s = QUIET_S
    while True:
        await serving.wait_stalled(quiet_s)
        failures = [
            f"{target}: {endpoints.last_failure}"
            for (_, target), endpoints in resources.items("endpoints").items()
            if endpoints.failed_at >= serving.moved_at
        ]
        held = holding(resources)
        if failures:
            held = [f"waiting: {each}" for each in held]
            say(f"no answer for {quiet_s:g} s, still trying: {'; '.join(failures + held)}")
        elif held:
            say(f"no answer for {quiet_s:g} s, waiting: {'; '.join(held)}")
        quiet_s *= 3
