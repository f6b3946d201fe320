"""`engine runs list|show|diff|report|resume|cancel|prune`: what earlier runs left behind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.command import Command, json_flag, whole_number
from engine.cli.terminal import print_json, print_table
from engine.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from engine.runs.catalog import RunInfo
    from engine.schemas import RunSpec
    from engine.schemas.output import OutputSpec


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default="outputs", metavar="DIR", help="folder of the runs")


def _shown(parser: argparse.ArgumentParser) -> None:
    _root(parser)
    json_flag(parser)


def _pruned(parser: argparse.ArgumentParser) -> None:
    _root(parser)
    parser.add_argument(
        "--keep", type=whole_number(0), required=True, metavar="N", help="number of the newest runs to keep"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    parser.add_argument("--force", action="store_true", help="also delete runs that can be resumed")


def _names() -> list[str]:
    from engine.runs import catalog

    return [run.name for run in catalog.list_runs("outputs")]


COMMANDS = {
    "list": Command(
        summary="list runs, the newest first",
        flags=_shown,
        examples=("runs list", "runs list --json", "runs list --root elsewhere"),
    ),
    "show": Command(
        summary="show one run: status, figures, batch jobs",
        words="RUN",
        flags=_shown,
        examples=("runs show RUN", "runs show RUN --json", "runs show outputs/20261122-211500-x7k2qd"),
        exit_codes=(0, 2, 5),
        values=_names,
    ),
    "diff": Command(
        summary="compare the specs and the figures of two runs",
        words="RUN RUN",
        flags=_shown,
        examples=("runs diff A B", "runs diff A B --json", "runs diff outputs/A outputs/B"),
        exit_codes=(0, 2, 5),
        values=_names,
    ),
    "report": Command(
        summary="make a run's report again, and print it",
        words="RUN",
        flags=_root,
        examples=("runs report RUN", "runs report outputs/RUN", "runs report RUN --root elsewhere"),
        exit_codes=(0, 2, 5),
        values=_names,
    ),
    "resume": Command(
        summary="continue a run that was stopped, has stalled or crashed",
        words="RUN [output.KEY=VALUE …]",
        flags=_root,
        examples=("runs resume RUN", "runs resume RUN output.max_cost_usd=5", "runs resume outputs/RUN"),
        exit_codes=(0, 2, 3, 4, 5, 6, 7, 130),
        values=_names,
    ),
    "cancel": Command(
        summary="end the batch jobs that a run left at the provider",
        words="RUN",
        flags=_root,
        examples=("runs cancel RUN", "runs cancel outputs/RUN", "runs cancel RUN --root elsewhere"),
        exit_codes=(0, 2, 4, 5),
        values=_names,
    ),
    "prune": Command(
        summary="delete old runs",
        flags=_pruned,
        examples=("runs prune --keep 20", "runs prune --keep 20 --dry-run", "runs prune --keep 0 --force"),
        exit_codes=(0, 2, 5),
    ),
}


def main(arguments: argparse.Namespace) -> int:
    """Raises ConfigError, OutputError, and SetupError for a batch job that can't be reached."""
    from engine.runs.directory import find_run

    if arguments.command in ("list", "prune"):
        return _list(arguments) if arguments.command == "list" else _prune(arguments)
    names = arguments.words if arguments.command == "diff" else arguments.words[:1]
    paths = [find_run(name, arguments.root) for name in names]
    run = {"show": _show, "diff": _diff, "report": _report, "resume": _resume, "cancel": _cancel}
    return run[arguments.command](paths, arguments)


def _list(arguments: argparse.Namespace) -> int:
    from engine.runs import catalog

    runs = catalog.list_runs(arguments.root)
    if arguments.json:
        print_json([_plain(run) for run in runs])
    elif not runs:
        print(f"no runs in {arguments.root}")
    else:
        _print_runs(runs)
    return 0


def _show(paths: Sequence[Path], arguments: argparse.Namespace) -> int:
    from engine.runs import catalog

    path = paths[0]
    record = catalog.show(path)
    if arguments.json:
        print_json(record)
        return 0
    metrics = record.pop("metrics") or {}
    shown = ("status", "reason", "started", "finished", "targets", "workload", "rows", "ok", "failed", "wall_s",
             "overrides")  # fmt: skip
    rows: list[tuple[str, Any]] = [(name, record[name]) for name in shown if record.get(name) not in (None, [], "")]
    rows += [(name, metrics[name]) for name in ("requests_per_s", "output_tokens_per_s", "retries") if name in metrics]
    rows += [(f"batch job {job['number']}", _job(job)) for job in record["jobs"]]
    for name, value in rows:
        print(f"{name:<20} {', '.join(value) if isinstance(value, list) else value}")
    if (path / "report.html").exists():
        print(f"{'report':<20} {path / 'report.html'}")
    if record["status"] == "crashed":
        print(f"{'next':<20} python -m engine runs resume {path}")
    return 0


def _job(job: dict[str, Any]) -> str:
    """A batch job on one line."""
    how = job["said"] or job["state"]
    counts = f"{job['answered']} answered, {job['failed']} failed, {job['again']} left" if job["ended_at"] else ""
    return "; ".join(part for part in (job["provider_id"] or job["tag"], f"{job['rows']} rows", how, counts) if part)


def _diff(paths: Sequence[Path], arguments: argparse.Namespace) -> int:
    from engine.runs import catalog

    a, b = paths
    found = catalog.diff(a, b)
    if arguments.json:
        print_json(asdict(found))
        return 0
    print("\n".join(found.spec) if found.spec else "the same spec")
    rows = [(line.name, line.a, line.b, line.ratio) for line in found.metrics]
    if rows:
        print()
        print_table(["metric", a.name, b.name, "ratio"], rows)
    return 0


def _report(paths: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Makes the report again, with this version's template, and prints it."""
    from engine.runs.directory import open_existing
    from engine.runs.report import rewrite_report
    from engine.workloads.open import open_source

    path, spec = _entered(paths[0])
    try:
        source = open_source(spec.workload, spec.model.tasks, spec.seed, spec.prompt)
    except ConfigError:
        source = None  # the workload is gone; the answers are still there
    with open_existing(path) as run:
        rewrite_report(run, None if source is None or source.live else source)
        print(run.report_md.read_text(encoding="utf-8"), end="")
    return 0


def _resume(paths: Sequence[Path], arguments: argparse.Namespace) -> int:
    from engine.cli.answer import answer

    path, spec = _entered(paths[0])
    changes = {"resume": str(path), "dir": None}
    output = _changed(spec.output, arguments.words[1:]).model_copy(update=changes)
    return answer(spec.model_copy(update={"output": output}))


def _entered(path: Path) -> tuple[Path, RunSpec]:
    """Returns a run's absolute path and its spec, in the folder that the run was started in."""
    from engine.runs.directory import enter_start_folder, load_spec

    path = path.absolute()
    enter_start_folder(path)
    return path, load_spec(path)


def _changed(output: OutputSpec, changes: Sequence[str]) -> OutputSpec:
    """Returns `output` with other knobs, such as a higher `output.max_cost_usd`. Raises ConfigError."""
    import yaml  # type: ignore[import-untyped]
    from pydantic import ValidationError

    known = output.model_dump()
    for change in changes:
        path, equals, text = change.partition("=")
        knob = path.removeprefix("output.")
        if not equals or knob == path or knob not in known:
            raise ConfigError(f"{change}: a resume changes nothing but output.KEY=VALUE; {nearest(knob, known)}")
        try:
            known[knob] = yaml.safe_load(text)
            output = type(output).model_validate(known)
        except (yaml.YAMLError, ValidationError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "can't be read"
            raise ConfigError(f"{change}: {said}") from error
    return output


def _cancel(paths: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Ends the batch jobs that a run has left at the provider. The provider keeps the answers that it has by then, and
    a resume reads them."""
    import asyncio

    from engine.api.engine import Engine
    from engine.batches import operations
    from engine.batches.ledger import Ledger, jobs_of
    from engine.runs.directory import open_existing

    path, spec = _entered(paths[0])
    with open_existing(path) as run:
        if not jobs_of(run.journal):
            print(f"{path.name} has no batch jobs")
            return 0
        ledger = Ledger(run.journal, "")
        try:
            lines = asyncio.run(operations.cancel(Engine(spec), ledger, print))
        finally:
            ledger.close()
    print("\n".join(lines) or f"no batch job of {path.name} is running")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from engine.runs import catalog

    gone = catalog.prune(arguments.root, keep=arguments.keep, dry_run=arguments.dry_run, force=arguments.force)
    if gone:
        _print_runs(gone)
    else:
        print("nothing to delete")
    print(f"{len(gone)} {'would be deleted' if arguments.dry_run else 'deleted'}")
    return 0


def _print_runs(runs: Sequence[RunInfo]) -> None:
    heads = ["run", "status", "rows", "ok", "failed", "wall s", "targets", "workload"]
    print_table(heads, [_row(run) for run in runs])


def _row(run: RunInfo) -> tuple[object, ...]:
    targets = " → ".join(run.targets)
    return run.name, run.status, run.rows, run.ok, run.failed, round(run.wall_s, 1), targets, run.workload


def _plain(run: RunInfo) -> dict[str, Any]:
    return {**asdict(run), "path": str(run.path), "resumable": run.resumable}
