"""The runs under an outputs root: list, show, compare, prune. Returns data; `table` formats it as text."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from engine.batches.ledger import jobs_of
from engine.core.errors import OutputError
from engine.runs.directory import load_manifest, load_plain_spec
from engine.runs.fingerprint import diff as spec_diff
from engine.runs.journal import counts
from engine.runs.lock import LOCK, RunLock, is_locked
from engine.runs.manifest import Manifest

COMPARED = {
    "ok": ("ok",),
    "failed": ("failed",),
    "wall (s)": ("wall_s",),
    "rows/s": ("requests_per_s",),
    "output tokens/s": ("output_tokens_per_s",),
    "latency p50 (s)": ("latency_s", "p50"),
    "latency p95 (s)": ("latency_s", "p95"),
    "latency p99 (s)": ("latency_s", "p99"),
    "first token p50 (s)": ("first_token_s", "p50"),
    "queue p95 (s)": ("queue_s", "p95"),
    "retries": ("retries",),
    "input tokens": ("tokens", "input"),
    "output tokens": ("tokens", "output"),
    "cost ($)": ("cost",),
}
"""Metrics that `diff` compares: name → path in metrics.json."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run in a list."""

    name: str
    """Relative to the root."""
    path: Path
    status: str
    """running, interrupted, stalled, spent, failed, finished, or crashed: the manifest has running, but no process
    holds the run."""
    started: str
    rows: int | None
    ok: int
    failed: int
    wall_s: float
    targets: list[str]
    workload: str

    @property
    def resumable(self) -> bool:
        return self.status in ("interrupted", "stalled", "spent", "failed", "crashed")


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of two runs; `ratio` is b / a, None where it is undefined."""

    name: str
    a: float | None
    b: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class RunDiff:
    """The differences between two runs."""

    spec: list[str]
    """`path: a -> b` lines."""
    metrics: list[Compared]


def list_runs(root: str | Path) -> list[RunInfo]:
    """Returns every run in the root and in its sweeps, the oldest first; folders without a run are skipped."""
    root = Path(root)
    manifests = [*root.glob("*/manifest.json"), *root.glob("sweeps/*/*/manifest.json")]
    runs = []
    for path in (file.parent for file in manifests):
        try:
            manifest = load_manifest(path)
        except OutputError:
            continue
        runs.append(_info(path, manifest, str(path.relative_to(root))))
    return sorted(runs, key=lambda run: (run.started, run.name))


def show(path: Path) -> dict[str, Any]:
    """Returns the manifest, the true status, the metrics (None before the end), and the batch jobs. Raises
    OutputError."""
    manifest = load_manifest(path)
    record: dict[str, Any] = msgspec.to_builtins(manifest)
    record["status"] = _status(path, manifest)
    record["path"] = str(path)
    record["metrics"] = _metrics(path)
    journal = path / "journal.sqlite"
    record["ok"], record["failed"] = _counts(path, manifest)
    record["jobs"] = [job.as_dict() for job in jobs_of(journal)] if journal.exists() else []
    return record


def diff(a: Path, b: Path) -> RunDiff:
    """Raises OutputError."""
    metrics_a, metrics_b = _metrics(a) or {}, _metrics(b) or {}
    compared = []
    for name, keys in COMPARED.items():
        left, right = _pick(metrics_a, keys), _pick(metrics_b, keys)
        if left is None and right is None:
            continue
        ratio = round(right / left, 4) if left and right is not None else None
        compared.append(Compared(name, left, right, ratio))
    return RunDiff(spec_diff(load_plain_spec(a), load_plain_spec(b), excluded=True), compared)


def prune(
    root: str | Path,
    *,
    keep: int | None = None,
    older_than_s: float | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> list[RunInfo]:
    """Deletes runs and returns them: all but the `keep` latest, and of those only what started before `older_than_s`
    seconds ago. A run that a process holds is never deleted, one that can be resumed only with `force`.

    Raises OutputError when neither limit is given, or a run can't be deleted.
    """
    if keep is None and older_than_s is None:
        raise OutputError("runs prune: got no limit. Fix: give keep=N or older_than_s=SECONDS")
    runs = list_runs(root)
    candidates = runs if keep is None else runs[: max(0, len(runs) - keep)]
    pruned = []
    for run in candidates:
        young = older_than_s is not None and time.time() - _seconds(run.started) < older_than_s
        if young or run.status == "running" or (run.resumable and not force):
            continue
        if dry_run or _delete(run.path):
            pruned.append(run)
    return pruned


def _info(path: Path, manifest: Manifest, name: str) -> RunInfo:
    ok, failed = _counts(path, manifest)
    return RunInfo(
        name=name,
        path=path,
        status=_status(path, manifest),
        started=manifest.started,
        rows=manifest.rows,
        ok=ok,
        failed=failed,
        wall_s=manifest.wall_s,
        targets=manifest.targets,
        workload=manifest.workload,
    )


def _status(path: Path, manifest: Manifest) -> str:
    return "crashed" if manifest.status == "running" and not is_locked(path) else manifest.status


def _counts(path: Path, manifest: Manifest) -> tuple[int, int]:
    """Counts the rows recorded as ok and as failed. Until a run ends, and after a crash, only the journal has them."""
    journal = path / "journal.sqlite"
    if manifest.status != "running" or not journal.exists():
        return manifest.ok, manifest.failed
    try:
        return counts(journal)
    except OutputError:
        return manifest.ok, manifest.failed  # a list shows a run with a broken journal, too


def _metrics(path: Path) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = msgspec.json.decode((path / "metrics.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise OutputError(f"{path / 'metrics.json'} can't be read: {error}") from error
    return metrics


def _pick(metrics: dict[str, Any], keys: Sequence[str]) -> float | None:
    value: Any = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def _delete(path: Path) -> bool:
    """False when a process took the run in the meantime."""
    try:
        lock = RunLock(path)
    except OutputError:
        return False
    try:
        for entry in path.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (path / LOCK).unlink()
        path.rmdir()
    except OSError as error:
        raise OutputError(f"{path} can't be deleted: {error.strerror}") from error
    finally:
        lock.release()
    return True


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp()
