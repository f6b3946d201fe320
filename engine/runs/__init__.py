"""Durable runs: a directory, a journal, and the results, metrics and reports made from it.

source = open_source(spec.workload, spec.model.tasks)
with open_run(spec, source, facts) as run:
    summary = await execute(engine, spec, run, progress=…, stop=…, source=source)
"""

from __future__ import annotations

from engine.runs.directory import RunDirectory, find_run, load_manifest, load_spec, open_run, resume_command
from engine.runs.in_flight import Progress
from engine.runs.manifest import ConfigSource, Manifest, Provenance
from engine.runs.runner import Summary, execute
from engine.runs.stop_signal import StopSignal

__all__ = [
    "ConfigSource",
    "Manifest",
    "Progress",
    "Provenance",
    "RunDirectory",
    "StopSignal",
    "Summary",
    "execute",
    "find_run",
    "load_manifest",
    "load_spec",
    "open_run",
    "resume_command",
]
