"""Group `workload`: where the requests come from."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Spec
from schemas.model import Task


class _Workload(Spec):
    task: Task | None = None
    """What a row asks for where it does not say so itself; null: the model's first task, else chat."""
    parameters: dict[str, Any] = {}
    """Body fields for rows that do not set them, such as max_tokens."""
    limit: int | None = Field(None, ge=1)
    """Rows to read at most; null: all."""
    on_invalid: Literal["dead", "stop"] = "dead"
    """A row that can't be read: dead records it as failed and goes on; stop refuses the run before it starts."""


class SampleWorkloadSpec(_Workload):
    """A few shipped rows that fit the model's task."""

    kind: Literal["sample"]


class JsonlWorkloadSpec(_Workload):
    """OpenAI batch-file lines or the short forms, one JSON object a line."""

    kind: Literal["jsonl"]
    path: str
    """The file; .gz is read as it is."""


class CsvWorkloadSpec(_Workload):
    """A table with a header: a column `prompt` or `input`; `id`, `priority`, `deadline_s` are understood."""

    kind: Literal["csv"]
    path: str
    """The file."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    """The character between two cells."""
    column: str | None = None
    """The column that holds the text; null: prompt, input or text, whichever is there."""


class ParquetWorkloadSpec(_Workload):
    """A Parquet table, read in row groups (needs the extra `parquet`)."""

    kind: Literal["parquet"]
    path: str
    """The file."""
    column: str | None = None
    """The column that holds the text; null: prompt, input or text, whichever is there."""


class TxtWorkloadSpec(_Workload):
    """One prompt a line; empty lines are skipped."""

    kind: Literal["txt"]
    path: str
    """The file."""


class StdinWorkloadSpec(_Workload):
    """Standard input."""

    kind: Literal["stdin"]
    format: Literal["auto", "jsonl", "txt"] = "auto"
    """auto: a line that starts with { is JSON, any other is a prompt."""


WorkloadSpec = Annotated[
    SampleWorkloadSpec
    | JsonlWorkloadSpec
    | CsvWorkloadSpec
    | ParquetWorkloadSpec
    | TxtWorkloadSpec
    | StdinWorkloadSpec,
    Field(discriminator="kind"),
]
