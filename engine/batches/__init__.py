"""The provider's batch API as a way of answering a run's rows: asynchronous jobs at a lower price, never paid twice.

`Jobs` stands where a run else submits a row to the engine. `Life` is what becomes of one job, `BatchClient` carries out
its calls, and the ledger in the run's journal (engine.runs.ledger) is what a crash leaves.
"""

from __future__ import annotations

from engine.batches.client import batch_api
from engine.batches.jobs import Jobs
from engine.errors import ConfigError
from engine.workloads import Source
from schemas import RunSpec

__all__ = ["Jobs", "check"]


def check(spec: RunSpec, source: Source) -> None:
    """Raises ConfigError for a run that asks for batch jobs and can't have them."""
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
            "policy.batch.strategy: users who wait for each answer before they ask again can't fill a batch job; "
            "use workload.arrivals other than closed, or policy/batch=default"
        )
