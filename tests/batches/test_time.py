"""Waiting, in virtual time: a day passes in no time, and every wait is as long as it is said to be."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.batches.client import RESULT_BYTES
from engine.core.errors import Stalled
from engine.core.virtual_time import VirtualClock
from engine.core.virtual_time import run as run_virtual
from engine.executors.services import Services
from engine.runs import execute, open_run
from engine.runs.runner import Summary
from engine.schemas import RunSpec
from engine.schemas.simulated import SimulatedProviderSpec
from engine.workloads.open import open_source
from tests.batches.conftest import APIS, KEYS, results_of, spec_for
from tests.batches.direct import DirectTransport
from tests.batches.test_jobs import attempts_of

HOUR_S = 3600.0

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def run(spec: dict[str, Any], **batch: Any) -> tuple[Summary, DirectTransport]:
    """Executes a spec in virtual time against a provider with these batch jobs."""
    made = RunSpec.model_validate(spec)
    provider = SimulatedProviderSpec.model_validate({"kind": "simulated", "batch": batch})

    async def main(clock: VirtualClock) -> tuple[Summary, DirectTransport]:
        direct = DirectTransport(provider, clock)
        services = Services(clock=clock)
        transport = made.provider.transport  # type: ignore[union-attr]
        for each in (transport, transport.model_copy(update={"max_body_bytes": RESULT_BYTES})):
            services.transports[each] = direct
        source = open_source(made.workload, made.model.tasks)
        async with Engine(made, services=services) as engine:
            with open_run(made, source) as directory:
                return await execute(engine, made, directory, source=source), direct

    return run_virtual(main)


@pytest.mark.parametrize("api", APIS)
def test_questions_come_ever_more_seldom_and_the_end_is_seen_within_the_longest_wait(api: str, tmp_path: Path) -> None:
    spec = spec_for(api, "http://provider", tmp_path, poll_s=5.0, poll_factor=2.0, poll_max_s=300.0)
    summary, direct = run(spec, takes_s=6 * HOUR_S)
    assert summary.ok == 12
    assert 6 * HOUR_S <= summary.wall_s <= 6 * HOUR_S + 300
    asked = [at for at, call in direct.times if call.startswith("GET") and "batch" in call and "results" not in call]
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert [round(wait) for wait in waits[:7]] == [5, 10, 20, 40, 80, 160, 300]
    assert {round(wait) for wait in waits[7:]} <= {300, 0}
    assert len(asked) < 85


def test_a_job_of_a_day_is_no_stalled_run(tmp_path: Path) -> None:
    spec = spec_for("openai", "http://provider", tmp_path, poll_s=5.0, poll_max_s=120.0, output={"stalled_s": 900.0})
    summary, _ = run(spec, takes_s=23 * HOUR_S)
    assert summary.ok == 12


def test_a_provider_whose_queue_stays_full_stalls_the_run(tmp_path: Path) -> None:
    spec = spec_for("openai", "http://provider", tmp_path, poll_s=5.0, poll_max_s=60.0, output={"stalled_s": 900.0})
    with pytest.raises(Stalled, match="no row made progress for 900 s"):
        run(spec, crowded=1000)


def test_a_job_that_is_not_full_goes_when_nobody_has_joined_it_for_a_while(tmp_path: Path) -> None:
    spec = spec_for("openai", "http://provider", tmp_path, max_rows=100, linger_s=10.0, unanswered="job", max_tries=9)
    _, direct = run(spec, expired=0.25)
    sent = [at for at, call in direct.times if call == "POST /v1/batches"]
    assert len(sent) == 2
    assert sent[1] - sent[0] == pytest.approx(10.0, abs=1.0)


def test_no_more_jobs_than_max_jobs_are_at_the_provider_at_once(tmp_path: Path) -> None:
    spec = spec_for(
        "openai", "http://provider", tmp_path, rows=10, max_rows=2, max_jobs=2, poll_s=20.0, poll_max_s=60.0
    )
    summary, direct = run(spec, takes_s=HOUR_S)
    assert summary.ok == 10
    sent = [at for at, call in direct.times if call == "POST /v1/batches"]
    assert len(sent) == 5
    assert all(later - earlier >= HOUR_S for earlier, later in zip(sent, sent[2:], strict=False))


def test_a_lost_job_is_looked_for_as_long_as_settle_s_says(tmp_path: Path) -> None:
    spec = spec_for("openai", "http://provider", tmp_path, poll_s=5.0, poll_max_s=60.0, settle_s=60.0)
    summary, direct = run(spec, failed_creations=1)
    assert summary.ok == 12
    first, second = [at for at, call in direct.times if call == "POST /v1/batches"]
    assert second - first >= 60.0
    assert len(direct.store.jobs) == 1
    assert attempts_of(results_of(tmp_path)[0]) == [(True, "ok")]
