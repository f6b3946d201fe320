"""Writes the figures of a finished run: metrics.json and both reports.

The results are on the disk by then. An error here is a warning, which the report repeats; it never keeps a run from
finishing. A disk that refuses a file is the exception: it would refuse the manifest, too.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.batches.ledger import jobs_of
from engine.core.atomic_file import CantWrite, write_atomic
from engine.core.resources import Resources
from engine.runs.directory import RunDirectory
from engine.runs.journal import entries
from engine.runs.report import Findings, write_report
from engine.workloads.open import Source

log = logging.getLogger("engine.runs")


@dataclass(slots=True)
class Statistics:
    """The figures of a run, as far as they could be made."""

    metrics: dict[str, Any] = field(default_factory=dict)
    first_errors: list[str] = field(default_factory=list)


def write_statistics(
    run: RunDirectory, source: Source, resources: Resources | None, *, timed: bool, warn: Callable[[str], None]
) -> Statistics:
    """Writes the files and returns the figures. `timed`: rows came at their own times. Raises CantWrite."""
    try:
        return _write(run, source, resources, timed, warn)
    except CantWrite:
        raise
    except Exception as error:  # the boundary: no statistic may cost a result
        problem = f"report: it could not be made: {type(error).__name__}: {error}"
        log.warning("%s", problem, exc_info=error)
        next_step = f"The results are complete. Fix: python -m engine runs report {run.path}"
        warn(f"{problem}. {next_step}")
        _write_notice(run, problem, next_step)
        return Statistics()


def _write(
    run: RunDirectory, source: Source, resources: Resources | None, timed: bool, warn: Callable[[str], None]
) -> Statistics:
    manifest, findings = run.manifest, Findings(resources)
    for entry in entries(run.journal):
        findings.see(entry.payload.partition(b"\n")[0], entry.ok)
    if findings.unreadable:
        warn(f"{findings.unreadable} rows are not in the statistics: their records can't be read (see run.log)")
    metrics = findings.summary(manifest.wall_s)
    if timed:
        metrics["held_back"] = sum(session.held_back for session in manifest.sessions)
        metrics["held_back_s"] = max(session.held_back_s for session in manifest.sessions)
    if jobs := jobs_of(run.journal):
        metrics["jobs"] = [job.as_dict() for job in jobs]
    write_atomic(run.metrics, msgspec.json.format(msgspec.json.encode(metrics), indent=2) + b"\n")
    write_report(run, findings, source)
    return Statistics(metrics, findings.first_errors())


def _write_notice(run: RunDirectory, problem: str, next_step: str) -> None:
    """Writes reports that hold the reason and nothing else. Raises CantWrite."""
    manifest = run.manifest
    text = f"{manifest.ok} rows answered, {manifest.failed} failed.\n\n{problem}\n\n{next_step}\n"
    write_atomic(run.report_md, f"# Run {manifest.run}\n\n{text}".encode("utf-8", "replace"))
    page = f'<!doctype html><meta charset="utf-8"><title>{manifest.run}</title><pre>{html.escape(text)}</pre>\n'
    write_atomic(run.report_html, page.encode("utf-8", "replace"))
