"""A process that executes a run, to be killed, interrupted or starved by the tests.

usage: child_run.py WORKLOAD ROOT [option=value …]; options: delay_s, window, commit_s, drain_s, resume, dir, calls,
fsize (bytes a file may have at most), progress
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from typing import Any

from engine.core.errors import EngineError, ServerFailed
from engine.core.request import Attempt, EngineRecord, Request, Result
from engine.core.usage import Usage
from engine.runs import StopSignal, execute, open_run
from engine.schemas import RunSpec
from engine.telemetry.log import run_log
from engine.telemetry.progress import ProgressBar
from engine.workloads.open import open_source


class Answering:
    """Answers with the prompt reversed, fails for prompts with `fail` in them, and writes down every call."""

    def __init__(self, delay_s: float = 0.0, calls: str | None = None) -> None:
        self.delay_s = delay_s
        self._calls = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if calls else None

    def drain(self) -> None:
        """It has no queue: every request is under way at once."""

    async def submit(self, request: Request) -> Result:
        prompt = request.body["messages"][-1]["content"]
        if self._calls is not None:
            os.write(self._calls, f"{request.id}\n".encode())
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        attempt = Attempt("test/reverse", outcome="ok", duration_s=0.01, usage=Usage(len(prompt), 2))
        record = EngineRecord("test/reverse", [attempt], request.priority, total_s=0.01, metadata=request.metadata)
        if "fail" in prompt:
            attempt.outcome = "server"
            return Result(request.id or "", error=ServerFailed("it failed", status=500), engine=record)
        message = {"role": "assistant", "content": prompt[::-1]}
        body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return Result(request.id or "", body=body, usage=attempt.usage, engine=record)


def spec_of(workload: str, root: str, **options: Any) -> RunSpec:
    """A run spec for Answering."""
    output = {"root": root}
    for name in ("window", "commit_s", "drain_s", "resume", "dir"):
        if name in options:
            output[name] = options[name]
    return RunSpec.model_validate(
        {
            "provider": {"kind": "simulated"},
            "hardware": {"kind": "cpu"},
            "model": {"name": "reverse", "tasks": ["chat"]},
            "workload": {"kind": "jsonl", "path": workload, **options.get("rows", {})},
            "policy": {"queue": {"concurrency": int(options.get("concurrency", 64))}},
            "output": output,
        }
    )


async def run(spec: RunSpec, options: dict[str, str]) -> int:
    source = open_source(spec.workload, spec.model.tasks)
    engine = Answering(float(options.get("delay_s", 0)), options.get("calls"))
    progress = ProgressBar("off" if "progress" not in options else "auto")
    stop = StopSignal()
    with open_run(spec, source) as directory, run_log(directory.log), stop.on_signals():
        print(f"run {directory.path}", flush=True)
        if "fsize" in options:
            limit = int(options["fsize"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        summary = await execute(engine, spec, directory, progress=progress, stop=stop, source=source)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"rows {summary.rows} ok {summary.ok} failed {summary.failed} peak_kib {peak}", flush=True)
    return summary.exit_code


def main() -> int:
    options = dict(option.split("=", 1) for option in sys.argv[3:])
    try:
        return asyncio.run(run(spec_of(sys.argv[1], sys.argv[2], **options), options))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
