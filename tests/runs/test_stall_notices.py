"""engine/runs/stall_notices.py: what a run says while it goes on trying."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

import pytest

from engine import Engine
from engine.config.compose import compose
from engine.core import virtual_time
from engine.core.virtual_time import VirtualClock
from engine.executors.services import Services
from engine.runs.cost_limit import CostLimit
from engine.runs.in_flight import InFlight
from engine.runs.journal import Journal
from engine.runs.stall_notices import tell
from engine.workloads.open import open_source

FAILED = "still trying: simulated/simulated: server: simulated: the server failed inside"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("{kind: server}", [f"no answer for 10 s, {FAILED}", f"no answer for 30 s, {FAILED}"]),
        ("{kind: slow, delay_s: 40}", []),
    ],
)
def test_a_run_that_goes_on_trying_says_why_and_a_slow_one_says_nothing(
    fault: str, told: list[str], tmp_path: Path
) -> None:
    said: list[str] = []

    async def for_45_s(clock: VirtualClock) -> None:
        retries = ["policy.retry.max_retries=100", "policy.retry.initial_delay_s=4"]
        spec = compose(["provider=simulated", f"provider.faults=[{fault}]", *retries]).spec
        async with Engine(spec, services=Services(clock=clock)) as engine:
            journal = Journal(tmp_path / "journal.sqlite", threaded=False)
            serving = InFlight(engine, journal, "run", 1, None, True, CostLimit(None))
            telling = asyncio.create_task(tell(serving, engine.resources, said.append))
            for row in islice(open_source(spec.workload), 1):
                serving.start(row, 0)
            await asyncio.sleep(45)
            telling.cancel()
            await serving.cancel()
            await journal.aclose()

    virtual_time.run(for_45_s)
    assert [line.rstrip(".") for line in said] == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["policy=throughput", "policy.rate_limit.enabled=true", "policy.rate_limit.requests_per_min=0.5"],
            "no answer for 10 s, waiting: simulated/simulated: policy.rate_limit: 2 calls wait for requests, "
            "the next one for 110.0 s",
        ),
        (
            ["provider.keys=1", "provider.faults=[{kind: throttled, hint: retry_after, retry_after_s: 5000, to_s: 1}]"],
            "waiting: simulated/simulated: key sim_1 barred 4990.0 s",
        ),
    ],
)
def test_a_run_that_waits_for_a_limit_or_a_key_names_it(options: list[str], told: str, tmp_path: Path) -> None:
    said: list[str] = []

    async def for_15_s(clock: VirtualClock) -> None:
        spec = compose(["provider=simulated", *options]).spec
        async with Engine(spec, services=Services(clock=clock)) as engine:
            journal = Journal(tmp_path / "journal.sqlite", threaded=False)
            serving = InFlight(engine, journal, "run", 3, None, True, CostLimit(None))
            telling = asyncio.create_task(tell(serving, engine.resources, said.append))
            for row in islice(open_source(spec.workload), 3):
                serving.start(row, 0)
            await asyncio.sleep(15)
            telling.cancel()
            await serving.cancel()
            await journal.aclose()

    virtual_time.run(for_15_s)
    assert len(said) == 1
    assert said[0].endswith(told)
