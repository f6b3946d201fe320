"""`engine check`: reach each target and say in one line what was found."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from engine.build import executor_for, target_names
from engine.compose import compose
from engine.errors import EngineError
from engine.executors import Services
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
    try:
        return [await _one(name, target, services) for name, target in named]
    finally:
        await services.aclose()


async def _one(name: str, target: TargetSpec, services: Services) -> tuple[str, bool, str]:
    try:
        executor = executor_for(target, services)
        try:
            return name, True, await executor.check()
        finally:
            await executor.aclose()
    except EngineError as error:
        return name, False, " ".join(str(error).split())
