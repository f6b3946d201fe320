"""A process that executes a run with batch jobs, to be killed by the tests.

usage: child_run.py SPEC_JSON; SPEC_JSON is a run spec as JSON text
"""

from __future__ import annotations

import asyncio
import sys

from engine import Engine
from engine.core.errors import EngineError
from engine.runs import StopSignal, execute, open_run
from engine.schemas import RunSpec
from engine.telemetry.progress import ProgressBar
from engine.workloads.open import open_source


async def run(spec: RunSpec) -> int:
    source = open_source(spec.workload, spec.model.tasks)
    stop = StopSignal()
    async with Engine(spec) as engine:
        with open_run(spec, source) as directory, stop.on_signals():
            progress = ProgressBar("auto")
            summary = await execute(engine, spec, directory, progress=progress, stop=stop, source=source)
    print(f"rows {summary.rows} ok {summary.ok} failed {summary.failed}", flush=True)
    return summary.exit_code


def main() -> int:
    try:
        return asyncio.run(run(RunSpec.model_validate_json(sys.argv[1])))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
