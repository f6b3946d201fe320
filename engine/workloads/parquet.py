"""Parquet tables, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.errors import ConfigError, SetupError
from engine.schemas.workload import ParquetWorkloadSpec
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source, find_file
from engine.workloads.table import object_of, text_column

_BATCH_ROWS = 256


def open_parquet(spec: ParquetWorkloadSpec, form: Form, seed: int = 0) -> Source:
    """Raises ConfigError for a file that is not Parquet or lacks the column, SetupError without pyarrow."""
    path, _ = find_file(spec.path)
    with _open(path, spec.path) as table:
        column = text_column(table.schema_arrow.names, spec.column, spec.path, form)
        rows: int = table.metadata.num_rows
    return Source(
        "parquet",
        spec.path,
        lambda: _read(path, spec.path, column, form),
        form,
        spec.limit,
        path,
        stored_count=lambda: rows,
    )


def _open(path: Path, name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SetupError("workload=parquet needs pyarrow: pip install 'ipfs-accelerate[parquet]'") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise ConfigError(f"workload.path: {name} is not a Parquet file: {error}") from error


def _read(path: Path, name: str, column: str | None, form: Form) -> Iterator[Record]:
    import pyarrow

    number = 0
    with _open(path, name) as table:
        try:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                for cells in batch.to_pylist():
                    number += 1
                    yield Record(number, object_of(cells, column, form))
        except pyarrow.ArrowException as error:
            raise OSError(str(error)) from error
