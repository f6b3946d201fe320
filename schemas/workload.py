"""Group `workload`: where the requests come from."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from engine.schemas.base import Spec
from engine.schemas.plugins import open_kinds, own_kinds
from engine.schemas.tasks import Task


class CommonWorkloadSpec(Spec):
    """Knobs that every workload has."""

    task: Task | None = None
    """The task of a row that names none; null: the model's first task, else chat."""
    parameters: dict[str, Any] = {}
    """Body fields for rows that do not set them, such as max_tokens."""
    limit: int | None = Field(None, ge=1)
    """Rows to read at most; null: all."""
    on_invalid: Literal["dead", "stop"] = "dead"
    """A row that can't be read: dead records it as failed and continues; stop refuses the run before it starts."""


class SampleWorkloadSpec(CommonWorkloadSpec):
    """A few shipped rows that fit the model's task."""

    kind: Literal["sample"]


class JsonlWorkloadSpec(CommonWorkloadSpec):
    """OpenAI batch-file lines or the short forms, one JSON object a line."""

    kind: Literal["jsonl"]
    path: str
    """The file; .gz is read as it is."""


class CsvWorkloadSpec(CommonWorkloadSpec):
    """A table with a header: a column `prompt` or `input`; `id`, `priority`, `deadline_s` are understood."""

    kind: Literal["csv"]
    path: str
    """The file."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    """The character between two cells."""
    column: str | None = None
    """The column that holds the text; null: prompt, input or text, whichever is there."""


class ParquetWorkloadSpec(CommonWorkloadSpec):
    """A Parquet table, read in row groups (needs the extra `parquet`)."""

    kind: Literal["parquet"]
    path: str
    """The file."""
    column: str | None = None
    """The column that holds the text; null: prompt, input or text, whichever is there."""


class TxtWorkloadSpec(CommonWorkloadSpec):
    """One prompt a line; empty lines are skipped."""

    kind: Literal["txt"]
    path: str
    """The file."""


class StdinWorkloadSpec(CommonWorkloadSpec):
    """Standard input."""

    kind: Literal["stdin"]
    format: Literal["auto", "jsonl", "txt"] = "auto"
    """auto: a line that starts with { is JSON, any other is a prompt."""


class LengthSpec(Spec):
    """The tokens of a text, drawn for each row."""

    distribution: Literal["constant", "uniform", "lognormal"] = "constant"
    """constant: always `median`; uniform: `min` to `max`; lognormal: around `median`, cut off at `min` and `max`."""
    median: float = Field(64, ge=1)
    """constant and lognormal: the middle, in tokens."""
    sigma: float = Field(0.7, ge=0)
    """lognormal: the standard deviation of its logarithm."""
    min: int = Field(1, ge=1)
    """The shortest, in tokens."""
    max: int = Field(4096, ge=1)
    """The longest, in tokens."""


class PrioritySharesSpec(Spec):
    """The shares of the priorities: weights, of which only the ratio counts."""

    high: float = Field(0.0, ge=0)
    """Weight of the rows with high priority."""
    normal: float = Field(1.0, ge=0)
    """Weight of the rows with normal priority."""
    low: float = Field(0.0, ge=0)
    """Weight of the rows with low priority."""


class SyntheticWorkloadSpec(CommonWorkloadSpec):
    """Synthetic traffic, row by row: when requests come, how long they are, how urgent. The same seed makes
    the same rows."""

    kind: Literal["synthetic"]
    arrivals: Literal["poisson", "constant", "trace", "closed"] = "poisson"
    """Open loop, however many are in flight: poisson (independent arrivals), constant (evenly spaced), trace (`times`).
    closed: `users` who each wait for their answer before their next request."""
    rate_per_s: float = Field(10.0, gt=0)
    """poisson and constant: arrivals a second."""
    times: tuple[float, ...] | str | None = None
    """trace: when each row comes, in seconds from the start, in order; or a file with one number a line."""
    users: int = Field(8, ge=1)
    """closed: users at once."""
    think_s: float = Field(0.0, ge=0)
    """closed: a user's pause before each question, in seconds; drawn from the exponential distribution of this mean."""
    duration_s: float | None = Field(None, gt=0)
    """No row comes later than this, in seconds; null: until `limit`, or the end of the trace."""
    priorities: PrioritySharesSpec = PrioritySharesSpec()
    """Shares of the priorities."""
    prompt_tokens: LengthSpec = LengthSpec()
    """Length of a prompt, one word a token."""
    max_tokens: LengthSpec | None = None
    """The body's max_tokens, for tasks that generate; null: not set."""
    deadline_s: float | None = Field(None, gt=0)
    """Each row's own deadline, in seconds; null: none."""


_Own = (
    SampleWorkloadSpec
    | JsonlWorkloadSpec
    | CsvWorkloadSpec
    | ParquetWorkloadSpec
    | TxtWorkloadSpec
    | StdinWorkloadSpec
    | SyntheticWorkloadSpec
)
WorkloadSpec = Annotated[
    Annotated[_Own, Field(discriminator="kind")], *open_kinds("workloads", own_kinds(*get_args(_Own)))
]
"""A plug-in of the port `workloads` adds a kind, whose spec extends CommonWorkloadSpec."""
