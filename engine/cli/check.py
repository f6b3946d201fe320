"""`engine check`: reach each target and say in one line what was found."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from engine import batches
from engine.build import executor_for, target_names
from engine.compose import compose
from engine.errors import ConfigError, EngineError
from engine.executors import Executor, Services
from engine.executors.remote import RemoteExecutor
from schemas import RunSpec, TargetSpec


def main(arguments: argparse.Namespace) -> int:
    """Exit code 0 when every target was reached, else 4."""
    spec = compose(arguments.words, arguments.config_dir).spec
    lines = asyncio.run(_check(spec))
    if arguments.json:
        print(json.dumps([{"target": name, "ok": ok, "found": found} for name, ok, found in lines], indent=2))
    else:
        for name, ok, found in lines:
            print(f"{'ok  ' if ok else 'FAIL'} {name}: {found}")
    return 0 if all(ok for _, ok, _ in lines) else 4


async def _check(spec: RunSpec) -> list[tuple[str, bool, str]]:
    services = Services(
        seed=spec.seed, storage=spec.storage, notify=lambda text: print(text, file=sys.stderr, flush=True)
    )
    named = zip(target_names(spec.targets), spec.targets, strict=True)
    in_jobs = spec.policy.batch.strategy == "provider"
    try:
        return [
            await _one(name, target, services, jobs=in_jobs and place == 0)
            for place, (name, target) in enumerate(named)
        ]
    finally:
        await services.aclose()


async def _one(name: str, target: TargetSpec, services: Services, jobs: bool) -> tuple[str, bool, str]:
    try:
        executor = executor_for(target, services)
        try:
            found = await executor.check()
            if jobs:
                found += f"; {await _probe(executor, services)}"
            return name, True, found
        finally:
            await executor.aclose()
    except EngineError as error:
        return name, False, " ".join(str(error).split())


async def _probe(executor: Executor, services: Services) -> str:
    """Reaches the batch API. Raises EngineError."""
    if not isinstance(executor, RemoteExecutor):
        raise ConfigError(f"policy.batch.strategy: {executor.target.name} is not remote and has no batch API")
    return await batches.probe(executor, services, services.clock.wall())
