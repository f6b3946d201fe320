"""Rows of tables: the meaning of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.core.errors import ConfigError, nearest
from engine.workloads.rows import ROW_FIELDS, Form

BODY_COLUMNS = frozenset(
    {
        "model", "messages", "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "n",
        "stop", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty", "response_format", "logprobs",
        "top_logprobs", "tools", "tool_choice", "user", "dimensions", "encoding_format",
    }
)  # fmt: skip
"""Columns that become fields of the body. Others become metadata: a provider would refuse a field `label`."""

_TEXT_COLUMNS = ("prompt", "input", "text")
_PLAIN = frozenset({"model", "user", "encoding_format"})
"""Columns never read as JSON: a user called 42 is text."""


def text_column(names: Sequence[str], wanted: str | None, source: str, form: Form) -> str | None:
    """Returns the column that holds the text; None: the rows have `messages` or `body`, or a prompt reads the columns.
    Raises ConfigError."""
    if form.prompt is not None:
        form.prompt.check(names, source)
    if form.prompt is not None or form.cells:
        return None
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"workload.column: {source} has no column {wanted!r}; {nearest(wanted, names)}")
        return wanted
    for name in _TEXT_COLUMNS:
        if name in names:
            return name
    if "messages" in names or "body" in names:
        return None
    listed = ", ".join(names[:12]) or "none"
    raise ConfigError(
        f"workload.column: {source} has no column prompt, input or text (its columns: {listed}); "
        "name the one that holds the text with workload.column=NAME"
    )


def object_of(cells: Mapping[str, Any], column: str | None, form: Form) -> dict[str, Any]:
    """Returns the row object of a table's row; empty cells are left out, JSON in cells is read.

    With a prompt, all cells as they are.
    """
    if form.cells:
        return dict(cells)
    if form.prompt is not None:
        read = ("metadata", "deadline_s")
        return {name: _read(cell) if name in read else without_nulls(cell) for name, cell in cells.items()}
    value: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name, cell in cells.items():
        if name == column:
            value["input" if name == "input" else "prompt"] = "" if cell is None else cell
        elif cell is None or cell == "" or cell != cell:  # NaN is an empty cell in tables made with pandas
            continue
        elif name == "metadata":
            given = _read(cell)
            if isinstance(given, dict):
                metadata.update(given)
            else:
                metadata["metadata"] = given
        elif name in ("body", "deadline_s") or (name in BODY_COLUMNS and name not in _PLAIN):
            value[name] = _read(cell) if isinstance(cell, str) else without_nulls(cell)
        elif name in ROW_FIELDS or name in _PLAIN:
            value[name] = cell
        else:
            metadata[name] = cell
    if metadata:
        value["metadata"] = metadata
    return value


def without_nulls(cell: Any) -> Any:
    """Returns a cell without the keys that have no value: a Parquet file has each key of any row in every row.

    A mapping without values is a null, too. Lists keep all their items, and so their positions.
    """
    if isinstance(cell, list):
        return [without_nulls(item) for item in cell]
    if not isinstance(cell, dict):
        return cell
    kept = {key: without_nulls(value) for key, value in cell.items() if value is not None}
    return {key: value for key, value in kept.items() if value != {} or cell[key] == {}}


def _read(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        return msgspec.json.decode(cell)
    except msgspec.DecodeError:
        return cell
