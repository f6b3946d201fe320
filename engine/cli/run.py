"""`engine run`: answer a workload."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Sequence

from engine import Engine
from engine.compose import Composition, compose
from engine.errors import Interrupted
from engine.executors import Services
from engine.runs.directory import RunDirectory, open_run
from engine.runs.manifest import ConfigSource, Facts
from engine.runs.runner import Summary, execute
from engine.runs.stop import StopSignal
from engine.telemetry.log import run_log
from engine.telemetry.progress import ProgressBar
from engine.workloads import Source, open_source
from schemas import RunSpec


def main(arguments: argparse.Namespace) -> int:
    composition = compose(arguments.words, arguments.config_dir)
    return answer(composition.spec, facts(composition))


def answer(spec: RunSpec, known: Facts | None = None) -> int:
    """Runs a spec to its end and returns the exit code. Everything that can be refused is refused before it starts."""
    source = open_source(spec.workload, spec.model.tasks)
    engine = Engine(spec, services=Services(seed=spec.seed, notify=_note))
    known = known or Facts()
    known.targets = engine.targets
    with open_run(spec, source, known) as run, run_log(run.log, spec.telemetry.log_level):
        progress = ProgressBar(spec.telemetry.progress)
        summary = asyncio.run(_run(engine, spec, run, source, progress))
    _say(summary, spec)
    return summary.exit_code


async def _run(engine: Engine, spec: RunSpec, run: RunDirectory, source: Source, progress: ProgressBar) -> Summary:
    stop = StopSignal()
    with stop.on_signals():
        try:
            await _start(engine, stop)
            return await execute(engine, spec, run, progress=progress, stop=stop, source=source)
        finally:
            await engine.aclose()


async def _start(engine: Engine, stop: StopSignal) -> None:
    """Starts the engine, unless a Ctrl-C comes first. Raises Interrupted."""
    starting = asyncio.create_task(engine.start())
    stopping = asyncio.create_task(stop.wait_drain())
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            raise Interrupted("stopped before the first row; nothing was begun")
        starting.result()
    finally:
        stopping.cancel()
        starting.cancel()


def facts(composition: Composition) -> Facts:
    """What the manifest records of the command line and of the config repos."""
    configs = []
    for source in composition.sources:
        commit, dirty = _git_state(source.path)
        configs.append(ConfigSource(path=source.path, origin=source.origin, commit=commit, dirty=dirty))
    return Facts(overrides=list(composition.overrides), configs=configs)


def _git_state(path: str) -> tuple[str | None, bool | None]:
    """The commit that a config folder is at, and whether its files differ from it; None where there is no git."""

    def git(words: Sequence[str]) -> str | None:
        try:
            done = subprocess.run(["git", "-C", path, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git(["rev-parse", "HEAD"])
    status = git(["status", "--porcelain", "--", "."]) if commit else None
    return commit, None if status is None else bool(status)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say(summary: Summary, spec: RunSpec) -> None:
    rate = summary.rows / summary.wall_s if summary.wall_s else 0.0
    print(f"{summary.ok} of {summary.rows} answered in {summary.wall_s:.1f} s ({rate:.1f}/s) → {summary.path}")
    if summary.failed:
        print(f"{summary.failed} failed; the rows to try again are in {summary.path / 'dead.jsonl'}", file=sys.stderr)
        for line in summary.first_errors[:3]:
            print(f"  {line}", file=sys.stderr)
