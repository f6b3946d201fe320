"""The table of a run, `output.table`: the columns of each row, its answer, and what it took, in the order of the input.

Made of the workload and results.jsonl, a batch of rows at a time. Columns have one type: a column with several, or with
lists and objects, is text (JSON).
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from engine.core.atomic_file import replacing
from engine.core.errors import SetupError
from engine.core.reply_text import first_text
from engine.runs.directory import RunDirectory
from engine.schemas import RunSpec
from engine.workloads.open import columns_of, open_cells

Kind = Literal["csv", "jsonl", "parquet", "arrow"]
Row = dict[str, Any]

ANSWER_COLUMNS: dict[str, str] = {
    "answer": "text", "embedding": "vector", "error": "text", "target": "text", "input_tokens": "whole",
    "output_tokens": "whole", "cost_usd": "number", "latency_s": "number",
}  # fmt: skip
"""Column → its type."""
_BATCH_ROWS = 10_000
_encode = msgspec.json.encode
_decode = msgspec.json.decode


def check(spec: RunSpec) -> None:
    """Raises SetupError if the table needs a package that is not installed."""
    if spec.output.table in ("parquet", "arrow"):
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise SetupError("output.table needs pyarrow: pip install 'ipfs-accelerate[parquet]'") from error


def write_table(run: RunDirectory, spec: RunSpec, kind: Kind) -> Path:
    """Writes `table.<kind>` into the run's directory, whole or not at all. Raises OutputError."""
    path = run.path / f"table.{kind}"
    types = _input_types(spec)
    names = {name: name if name not in (*ANSWER_COLUMNS, "id") else f"input_{name}" for name in types}
    embeds = _has_vectors(run.results)
    answers = {name: kind for name, kind in ANSWER_COLUMNS.items() if name != ("answer" if embeds else "embedding")}
    columns = {"id": "text", **{names[name]: kind for name, kind in types.items()}, **answers}
    with replacing(path) as (stream,):
        _WRITERS[kind](stream, columns, _rows(run.results, spec, names))
    return path


def _rows(results: Path, spec: RunSpec, names: Mapping[str, str]) -> Iterator[Row]:
    inputs = columns_of(open_cells(spec))
    with results.open("rb") as lines:
        for line, cells in itertools.zip_longest(lines, inputs or (), fillvalue=None):
            if line is None:
                return
            record = _decode(line)
            made = {names[name]: value for name, value in (cells or {}).items() if name in names}
            yield {"id": record["custom_id"], **made, **_answer(record)}


def _answer(record: Row) -> Row:
    engine, error = record["engine"], record["error"]
    body = record["response"]["body"] if record["response"] else None
    usage = engine.get("usage") or _last(engine.get("attempts") or [], "usage") or {}
    return {
        "answer": first_text(body),
        "embedding": _vector(body),
        "error": None if error is None else f"{error.get('kind')}: {error.get('message')}",
        "target": engine.get("target"),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cost_usd": engine.get("cost"),
        "latency_s": engine.get("total_s"),
    }


def _last(attempts: list[Any], name: str) -> Any:
    return next((each[name] for each in reversed(attempts) if isinstance(each, dict) and each.get(name)), None)


def _vector(body: Any) -> list[float] | None:
    data = body.get("data") if isinstance(body, dict) else None
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    found = first.get("embedding")
    return found if isinstance(found, list) else None


def _has_vectors(results: Path) -> bool:
    with results.open("rb") as lines:
        for line in itertools.islice(lines, 100):
            response = _decode(line)["response"]
            if response:
                return _vector(response["body"]) is not None
    return False


def _input_types(spec: RunSpec) -> dict[str, str]:
    """Returns the type of each column of the workload: of all its rows."""
    found: dict[str, set[str]] = {}
    for cells in columns_of(open_cells(spec)) or ():
        for name, value in cells.items():
            found.setdefault(name, set()).add(_type(value))
    return {name: _common(kinds - {"empty"}) for name, kinds in found.items()}


def _type(value: Any) -> str:
    if value is None:
        return "empty"
    kinds = {bool: "truth", int: "whole", float: "number", str: "text"}
    return kinds.get(type(value), "json")


def _common(kinds: set[str]) -> str:
    if kinds == {"whole", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 and "json" not in kinds else "text"


def _as(kind: str, value: Any) -> Any:
    if value is None or kind not in ("text", "number"):
        return value
    if kind == "number":
        return float(value)
    return value if isinstance(value, str) else _encode(value).decode()


# -- files -------------------------------------------------------------------------------------------------------------


def _write_csv(stream: IO[bytes], columns: Mapping[str, str], rows: Iterable[Row]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_as_cell(row.get(name)) for name in columns)
    text.flush()
    text.detach()


def _as_cell(value: Any) -> Any:
    return _encode(value).decode() if isinstance(value, list | dict | bool) else value


def _write_jsonl(stream: IO[bytes], columns: Mapping[str, str], rows: Iterable[Row]) -> None:
    for row in rows:
        stream.write(_encode({name: row.get(name) for name in columns}) + b"\n")


def _write_parquet(stream: IO[bytes], columns: Mapping[str, str], rows: Iterable[Row]) -> None:
    import pyarrow.parquet

    schema = _schema(columns)
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for batch in _batches(columns, rows, schema):
            writer.write_batch(batch)


def _write_arrow(stream: IO[bytes], columns: Mapping[str, str], rows: Iterable[Row]) -> None:
    import pyarrow

    schema = _schema(columns)
    with pyarrow.ipc.new_file(stream, schema) as writer:
        for batch in _batches(columns, rows, schema):
            writer.write_batch(batch)


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow

    types = {
        "text": pyarrow.string(), "whole": pyarrow.int64(), "number": pyarrow.float64(), "truth": pyarrow.bool_(),
        "vector": pyarrow.list_(pyarrow.float32()),
    }  # fmt: skip
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


def _batches(columns: Mapping[str, str], rows: Iterable[Row], schema: Any) -> Iterator[Any]:
    import pyarrow

    left = iter(rows)
    while batch := list(itertools.islice(left, _BATCH_ROWS)):
        arrays = {name: [_as(kind, row.get(name)) for row in batch] for name, kind in columns.items()}
        yield pyarrow.RecordBatch.from_pydict(arrays, schema=schema)


_WRITERS = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet, "arrow": _write_arrow}
