"""The sources of requests: lazily read rows. One file a kind of source; `rows.py` has the forms of a row."""

from __future__ import annotations

from engine.core.registry import WORKLOADS
from engine.schemas.workload import WorkloadSpec
from engine.workloads.rows import Form, Row
from engine.workloads.source import ClosedLoop, Source

__all__ = ["ClosedLoop", "Form", "Row", "Source", "check_rows", "open_source"]


def open_source(spec: WorkloadSpec, model_tasks: tuple[str, ...] = (), seed: int = 0) -> Source:
    """The rows of a workload; nothing is read but, of tables, the header.

    `model_tasks` are the model's tasks, the first of which is what a row requests when neither it nor the workload says
    so. `seed` is the run's; rows that are synthetic are drawn from it. Raises ConfigError for a path or column that
    isn't there, SetupError for a missing package.
    """
    form = Form(
        task=spec.task or (model_tasks[0] if model_tasks else "chat"),
        stated=spec.task is not None,
        parameters=spec.parameters,
    )
    opener = WORKLOADS.get(spec.kind)
    source: Source = opener(spec, form, seed)
    return source


def check_rows(source: Source) -> None:
    """Reads every row once and refuses the workload if one is invalid: `workload.on_invalid=stop`.

    Raises ConfigError with the first three invalid rows.
    """
    from engine.core.errors import ConfigError

    if source.live:
        raise ConfigError(
            f"workload.on_invalid: {source.name} can be read only once, so its rows can't be checked before the run; "
            "write them to a file (workload=jsonl workload.path=FILE) or use workload.on_invalid=dead"
        )
    found: list[str] = []
    more = 0
    for row in source:
        if row.error is not None:
            if len(found) < 3:
                found.append(row.error.message)
            else:
                more += 1
    if found:
        rest = f"\n… and {more} more" if more else ""
        raise ConfigError("\n".join(found) + rest + "\n(workload.on_invalid=dead records such rows as failed)")
