"""Answers a workload: a run from its spec to its exit code."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Sequence

from engine.api.engine import Engine
from engine.batches import operations
from engine.cli.shown_answers import ShownAnswers, are_shown
from engine.cli.terminal import is_terminal
from engine.config.compose import Composition
from engine.core.clock import SystemClock
from engine.core.errors import ConfigError, Interrupted
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop
from engine.executors.services import Services
from engine.runs import table
from engine.runs.directory import RunDirectory, open_run
from engine.runs.in_flight import Progress
from engine.runs.manifest import ConfigSource, Provenance
from engine.runs.report_format import dollars
from engine.runs.runner import Summary, execute
from engine.runs.stop_signal import StopSignal
from engine.runs.upload import Upload
from engine.schemas import RunSpec
from engine.telemetry.log import run_log
from engine.telemetry.progress import ProgressBar
from engine.workloads.open import Source, open_source


def answer(spec: RunSpec, known: Provenance | None = None) -> int:
    """Runs a spec to its end and returns the exit code. Everything that can be refused is refused before it starts."""
    source = open_source(spec.workload, spec.model.tasks, spec.seed, spec.prompt)
    operations.check(spec, source)
    table.check(spec)
    loop = VirtualTimeLoop() if in_virtual_time(spec, source) else None
    clock = SystemClock() if loop is None else VirtualClock(loop)
    engine = Engine(spec, services=Services(clock=clock, seed=spec.seed, notify=_note))
    engine.patient = True
    upload = Upload(spec, _note) if spec.output.upload else None
    known = known or Provenance()
    known.targets = engine.targets
    _calm_collector()
    with open_run(spec, source, known) as run, run_log(run.log, spec.telemetry.log_level):
        bar = ProgressBar(spec.telemetry.progress)
        progress: Progress = ShownAnswers(bar) if are_shown(spec, source) else bar
        with asyncio.Runner(loop_factory=None if loop is None else lambda: loop) as runner:
            summary = runner.run(_run(engine, spec, run, source, progress))
        _say(summary, spec)
        _name_disabled_keys(engine)
        if upload is not None:
            print(f"uploaded → {upload.send(run)}")
    return summary.exit_code


def in_virtual_time(spec: RunSpec, source: Source) -> bool:
    """Returns True for a run in virtual time. Raises ConfigError if the spec requests that and it can't be."""
    times = [target.provider.time if target.provider.kind == "simulated" else "no" for target in spec.targets]
    if "virtual" not in times:
        return source.made and all(time == "auto" for time in times)
    for index, time in enumerate(times):
        where = "provider" if index == 0 else f"fallbacks[{index - 1}].provider"
        if time in ("no", "real"):
            why = "is not simulated" if time == "no" else "has time=real"
            name = spec.targets[index].name
            raise ConfigError(f"{where}: {name} {why}, but a run in virtual time needs all targets simulated in it")
    if source.live:
        raise ConfigError(
            f"provider.time: {source.name} comes in real time; write its rows to a file, or say time=real"
        )
    return True


def _calm_collector() -> None:
    """Collects cycles rarely: rows leave few, and a search among thousands takes a fifth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _run(engine: Engine, spec: RunSpec, run: RunDirectory, source: Source, progress: Progress) -> Summary:
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


def provenance(composition: Composition) -> Provenance:
    """Returns what the manifest records of the command line and of the config repos."""
    configs = []
    for source in composition.sources:
        commit, dirty = _git_state(source.path)
        configs.append(ConfigSource(path=source.path, origin=source.origin, commit=commit, dirty=dirty))
    return Provenance(overrides=list(composition.overrides), configs=configs)


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


def _name_disabled_keys(engine: Engine) -> None:
    """Names the keys that the run has disabled: a fallback may have answered without a word."""
    for target in engine.targets:
        ring = engine.resources.find(("keys", target))
        for name, reason in [] if ring is None else ring.reasons.items():
            print(f"key {name} of {target} was disabled: {reason}", file=sys.stderr)


def _say(summary: Summary, spec: RunSpec) -> None:
    rate = summary.rows / summary.wall_s if summary.wall_s else 0.0
    took = f"{summary.wall_s:.1f} s"
    if summary.real_s is not None:
        took += f" of virtual time, {summary.real_s:.1f} s of real time"
    print(f"{summary.ok} of {summary.rows} answered in {took} ({rate:.1f}/s) → {summary.path}")
    if is_terminal(sys.stdout):
        print(f"report: {summary.path / 'report.html'}")
    if not summary.rows:
        print("the workload has no rows", file=sys.stderr)
    if summary.metrics.get("cost") is not None:
        print(f"cost: {dollars(summary.metrics)}")
    if summary.failed:
        print(f"{summary.failed} failed; the rows to try again are in {summary.path / 'dead.jsonl'}", file=sys.stderr)
        for line in summary.first_errors[:3]:
            print(f"  {line}", file=sys.stderr)
