"""`engine runs list|show|diff|report|resume|cancel|prune`: what earlier runs left behind."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.cli.command import Command, at_least, json_flag
from engine.cli.terminal import print_table
from engine.core.errors import ConfigError, nearest
from engine.runs import catalog
from engine.runs.directory import enter_start_folder, find_run, load_spec
from engine.schemas.output import OutputSpec

RESUMING = "RUN [output.KEY=VALUE …]"


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default="outputs", metavar="DIR", help="folder of the runs")


def _shown(parser: argparse.ArgumentParser) -> None:
    _root(parser)
    json_flag(parser)


def _pruned(parser: argparse.ArgumentParser) -> None:
    _root(parser)
    parser.add_argument("--keep", type=at_least(0), required=True, metavar="N", help="newest runs to keep")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    parser.add_argument("--force", action="store_true", help="also delete runs that can be resumed")


def _names() -> list[str]:
    return [run.name for run in catalog.list_runs("outputs")]


COMMANDS = {
    "list": Command("list runs, the newest first", ("runs list", "runs list --json", "runs list --root elsewhere"),
                    flags=_shown, most=0),
    "show": Command("show one run: status, figures, batch jobs", ("runs show RUN", "runs show RUN --json",
                    "runs show outputs/20261122-211500-x7k2qd"), "RUN", _shown, 1, 1, (0, 2, 5), _names),
    "diff": Command("compare the specs and the figures of two runs", ("runs diff A B", "runs diff A B --json",
                    "runs diff outputs/A outputs/B"), "RUN RUN", _shown, 2, 2, (0, 2, 5), _names),
    "report": Command("make a run's report again, and print it", ("runs report RUN", "runs report outputs/RUN",
                      "runs report RUN --root elsewhere"), "RUN", _root, 1, 1, (0, 2, 5), _names),
    "resume": Command("continue a run that was stopped, has stalled or crashed", ("runs resume RUN",
                      "runs resume RUN output.max_cost_usd=5", "runs resume outputs/RUN"), RESUMING, _root, 1, None,
                      (0, 2, 3, 4, 5, 6, 7, 130), _names),
    "cancel": Command("end the batch jobs that a run left at the provider", ("runs cancel RUN",
                      "runs cancel outputs/RUN", "runs cancel RUN --root elsewhere"), "RUN", _root, 1, 1,
                      (0, 2, 4, 5), _names),
    "prune": Command("delete old runs", ("runs prune --keep 20", "runs prune --keep 20 --dry-run",
                     "runs prune --keep 0 --force"), flags=_pruned, most=0, exit_codes=(0, 2, 5)),
}  # fmt: skip
DEFAULT = "list"


def main(arguments: argparse.Namespace) -> int:
    verb, words = arguments.command, arguments.words
    names, changes = (words[:1], words[1:]) if verb == "resume" else (words, [])
    paths = [find_run(name, arguments.root) for name in names]
    if verb == "list":
        return _list(arguments)
    if verb == "show":
        return _show(paths[0], arguments)
    if verb == "diff":
        return _diff(paths[0], paths[1], arguments)
    if verb == "report":
        return _report(paths[0])
    if verb == "resume":
        return _resume(paths[0], changes)
    if verb == "cancel":
        return _cancel(paths[0])
    return _prune(arguments)


def _list(arguments: argparse.Namespace) -> int:
    runs = catalog.list_runs(arguments.root)
    if arguments.json:
        _print_json([_plain(run) for run in runs])
    elif not runs:
        print(f"no runs in {arguments.root}")
    else:
        _print_runs(runs)
    return 0


def _show(path: Path, arguments: argparse.Namespace) -> int:
    record = catalog.show(path)
    if arguments.json:
        _print_json(record)
        return 0
    metrics = record.pop("metrics") or {}
    shown = (
        "status",
        "reason",
        "started",
        "finished",
        "targets",
        "workload",
        "rows",
        "ok",
        "failed",
        "wall_s",
        "overrides",
    )
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


def _diff(a: Path, b: Path, arguments: argparse.Namespace) -> int:
    found = catalog.diff(a, b)
    if arguments.json:
        _print_json(asdict(found))
        return 0
    print("\n".join(found.spec) if found.spec else "the same spec")
    rows = [(line.name, line.a, line.b, line.ratio) for line in found.metrics]
    if rows:
        print()
        print_table(["metric", a.name, b.name, "ratio"], rows)
    return 0


def _report(path: Path) -> int:
    """Makes the report again, with this version's template, and prints it."""
    from engine.runs.directory import open_existing
    from engine.runs.report import rewrite_report
    from engine.workloads.open import open_source

    path = path.absolute()
    enter_start_folder(path)
    spec = load_spec(path)
    try:
        source = open_source(spec.workload, spec.model.tasks, spec.seed)
    except ConfigError:
        source = None  # the workload is gone; the answers are still there
    with open_existing(path) as run:
        rewrite_report(run, None if source is None or source.live else source)
        print(run.report_md.read_text(encoding="utf-8"), end="")
    return 0


def _resume(path: Path, changes: list[str]) -> int:
    from engine.cli.run import answer

    path = path.absolute()
    enter_start_folder(path)
    spec = load_spec(path)
    output = _changed(spec.output, changes).model_copy(update={"resume": str(path), "dir": None})
    return answer(spec.model_copy(update={"output": output}))


def _changed(output: OutputSpec, changes: list[str]) -> OutputSpec:
    """`output` with other knobs, such as a higher `output.max_cost_usd`. Raises ConfigError."""
    import yaml  # type: ignore[import-untyped]

    known = output.model_dump()
    for change in changes:
        path, equals, text = change.partition("=")
        knob = path.removeprefix("output.")
        if not equals or knob == path or knob not in known:
            raise ConfigError(f"{change}: a resume changes nothing but output.KEY=VALUE; {nearest(knob, known)}")
        try:
            known[knob] = yaml.safe_load(text)
            output = OutputSpec.model_validate(known)
        except (yaml.YAMLError, ValidationError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "can't be read"
            raise ConfigError(f"{change}: {said}") from error
    return output


def _cancel(path: Path) -> int:
    """Ends the batch jobs that a run has left at the provider. What they have answered by then is kept there, and a
    resume reads it."""
    import asyncio

    from engine.api.engine import Engine
    from engine.batches import operations
    from engine.batches.ledger import Ledger, jobs_of
    from engine.runs.directory import open_existing

    path = path.absolute()
    enter_start_folder(path)
    spec = load_spec(path)
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
    gone = catalog.prune(arguments.root, keep=arguments.keep, dry_run=arguments.dry_run, force=arguments.force)
    if gone:
        _print_runs(gone)
    else:
        print("nothing to delete")
    print(f"{len(gone)} {'would be deleted' if arguments.dry_run else 'deleted'}")
    return 0


def _print_runs(runs: list[catalog.RunInfo]) -> None:
    heads = ["run", "status", "rows", "ok", "failed", "wall s", "targets", "workload"]
    print_table(
        heads,
        [
            (
                run.name,
                run.status,
                run.rows,
                run.ok,
                run.failed,
                round(run.wall_s, 1),
                " → ".join(run.targets),
                run.workload,
            )
            for run in runs
        ],
    )


def _plain(run: catalog.RunInfo) -> dict[str, Any]:
    return {**asdict(run), "path": str(run.path), "resumable": run.resumable}


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
