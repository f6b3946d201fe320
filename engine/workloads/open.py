"""The sources of requests: lazily read rows. One file a kind of source; `rows.py` has the forms of a row."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from engine.core.lenient_json import read_again
from engine.core.registry import WORKLOADS
from engine.schemas import RunSpec
from engine.schemas.prompt import PromptSpec
from engine.schemas.workload import WorkloadSpec
from engine.workloads.prompt import prompt_of
from engine.workloads.rows import Form, Row
from engine.workloads.source import ClosedLoop, Source

COLUMN_ROWS = 100
"""Rows whose keys are a file's columns, where the file has no header."""

__all__ = ["ClosedLoop", "Form", "Row", "Source", "check_rows", "columns_of", "open_cells", "open_source"]


def open_source(
    spec: WorkloadSpec, model_tasks: tuple[str, ...] = (), seed: int = 0, prompt: PromptSpec | None = None
) -> Source:
    """Returns the rows of a workload, as requests made by `prompt`; nothing is read but, of tables, the header.

    `model_tasks` are the model's tasks, the first of which is what a row requests when neither it nor the workload says
    so. `seed` is the run's; rows that are synthetic are drawn from it. Raises ConfigError for a path or column that
    isn't there, SetupError for a missing package.
    """
    task = spec.task or (model_tasks[0] if model_tasks else "chat")
    form = Form(
        task=task,
        stated=spec.task is not None,
        parameters={**(prompt.parameters if prompt is not None else {}), **spec.parameters},
        prompt=prompt_of(prompt, task),
    )
    opener = WORKLOADS.get(spec.kind)
    source: Source = opener(spec, form, seed)
    if form.prompt is not None and not source.live and not source.made:
        form.prompt.check(_columns(source), source.name)
    return source


def open_cells(spec: RunSpec) -> Source:
    """Returns the workload of a run whose records are the cells of its source, not requests. Raises as open_source."""
    opener = WORKLOADS.get(spec.workload.kind)
    source: Source = opener(spec.workload, Form(cells=True), spec.seed)
    return source


def columns_of(source: Source) -> Iterator[dict[str, Any]] | None:
    """Yields the columns of each row of a source: cells of a table, keys of a JSON line, `text` of a line of text. None
    for a source that can't be read again, or has no rows of its own."""
    return None if source.live or source.made else _cells(source)


def _cells(source: Source) -> Iterator[dict[str, Any]]:
    for record in itertools.islice(source.records(), source.limit):
        if isinstance(record.data, dict):
            yield record.data
        elif isinstance(record.data, str):
            yield {"text": record.data}
        else:
            value: Any = None
            with contextlib.suppress(ValueError):
                value = read_again(record.data)[0]
            yield value if isinstance(value, dict) else {}


def _columns(source: Source) -> list[str]:
    """Returns the names of the columns of the first rows, in their order."""
    names: dict[str, None] = {}
    for cells in itertools.islice(_cells(source), COLUMN_ROWS):
        names |= dict.fromkeys(cells)
    return list(names)


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
