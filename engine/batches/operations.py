"""Answers a run's rows through the provider's batch API: asynchronous jobs at a lower price, never paid twice.

`Jobs` takes the rows that a run would submit to the engine. `JobLifecycle` takes one job to its end, `BatchClient`
makes its calls, and the ledger in the run's journal (`batches.ledger`) survives a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.batches.client import BatchClient, batch_api
from engine.batches.job import Job
from engine.batches.jobs import LINE_BYTES, Jobs
from engine.batches.lifecycle import JobLifecycle
from engine.core.errors import ConfigError, InferenceError, SetupError
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import RunSpec
from engine.workloads.open import Source

if TYPE_CHECKING:
    from engine.api.engine import Engine
    from engine.batches.ledger import Ledger

__all__ = ["LINE_BYTES", "Jobs", "cancel", "check", "expected", "probe"]


def check(spec: RunSpec, source: Source) -> None:
    """Raises ConfigError for a run that is set to use batch jobs and can't."""
    if spec.policy.batch.strategy != "provider":
        return
    provider = spec.provider
    if provider.kind != "remote":
        raise ConfigError(
            f"policy.batch.strategy: provider={provider.name} is {provider.kind} and has no batch API; "
            "use policy/batch=default"
        )
    batch_api(provider)
    if source.closed_loop is not None:
        raise ConfigError(
            "policy.batch.strategy: users who wait for each answer before their next request can't fill a batch job; "
            "use workload.arrivals other than closed, or policy/batch=default"
        )


async def cancel(engine: Engine, ledger: Ledger, say: Callable[[str], None]) -> list[str]:
    """Cancels the jobs of a run that is not in use at the provider; returns a line for each. Raises SetupError."""
    executor = engine.pipeline.target_chains[0].executor
    assert isinstance(executor, RemoteExecutor)
    lines = []
    try:
        client = BatchClient(executor, engine.services)
        life = JobLifecycle(client, ledger, engine.spec.policy.batch.job, engine.clock, say)
        for record in ledger.open_jobs():
            if record.state == "asked" and not await life.adopt(Job(record, ())):
                ledger.change(record, state="void", said="was never created")
                continue
            assert record.provider_id is not None
            try:
                await client.cancel(record.provider_id, record.key)
            except InferenceError as error:
                raise SetupError(f"batch job {record.number} can't be cancelled: {error.message}") from error
            lines.append(f"batch job {record.number} ({record.provider_id}): cancellation requested")
    finally:
        await engine.aclose()
    return lines


async def probe(executor: RemoteExecutor, services: Services, wall_s: float) -> str:
    """Lists the jobs of the first key, and reports in one line that the batch API answers. Raises InferenceError."""
    client = BatchClient(executor, services)
    jobs = await client.listed(client.keys[0], wall_s - 86_400)
    return f"its batch API answers, {len(jobs)} jobs in the last 24 h"


def expected(spec: RunSpec, rows: int | None, size: int, share: float | None) -> str:
    """Describes the plan of a run with batch jobs in one line. `size` is roughly the bytes of all its requests, `share`
    the price of a batch job's tokens as a share of their live price."""
    assert spec.provider.kind == "remote"
    api, job = batch_api(spec.provider), spec.policy.batch.job
    most, most_bytes = min(job.max_rows, api.max_rows), min(job.max_bytes, api.max_bytes)
    number = 0 if rows is None else max(-(-rows // most), -(-size // most_bytes))
    count = "batch jobs" if rows is None else "1 batch job" if number == 1 else f"{number} batch jobs"
    price = "the provider's lower price" if share is None else f"{share:g} × the price"
    rest = {
        "live": "what they leave unanswered goes by live calls at the full price",
        "job": f"what they leave unanswered goes into up to {job.max_tries - 1} more",
        "dead": "what they leave unanswered fails",
    }
    return (
        f"{count} of at most {most} rows and {most_bytes} bytes, {job.max_jobs} at once, at {price}, each within "
        f"{job.window}; {rest[job.unanswered]}; priorities do not count, rows with a deadline_s go live"
    )
