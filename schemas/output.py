"""Group `output`: what a run leaves behind."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class OutputSpec(Spec):
    """The run directory and the journal."""

    root: str = "outputs"
    """Folder of the run directories if `dir` is null."""
    dir: str | None = None
    """The run directory itself; must not exist or be empty."""
    resume: str | None = None
    """A run directory to continue."""
    upload: str | None = Field(None, pattern=r"^s3://[^/\s]+(/\S*)?$")
    """Location in an S3 store for a copy of a finished run's results, report and manifest: s3://BUCKET/PREFIX, below
    it a folder with the run's name. `storage.s3` says how the store is reached. null: nowhere."""
    window: int | None = Field(None, ge=1)
    """Rows in flight at most, from being read to being durable: the bound on repeated calls after a crash.
    null: twice what the queue lets through plus one batch of commits; 40,000 for rows that come at their own times."""
    commit_s: float = Field(0.05, gt=0)
    """Longest time that a finished result waits for its group commit, in seconds."""
    drain_s: float = Field(30.0, ge=0)
    """After the first Ctrl-C: how long requests in flight may finish, in seconds."""
    stalled_s: float | None = Field(900.0, gt=0)
    """Longest time without progress while rows are in flight, in seconds; then the run stops and can be resumed.
    Getting anywhere is an answer, or a failure that is the row's own. null: it waits for ever."""
    max_alike: int | None = Field(20, ge=1)
    """Number of first rows that may all fail alike, none answered, before the run stops; it can be
    resumed: a wrong model or proxy must not use up a workload. The rows are not recorded. Not with
    a simulated provider, whose faults are meant. null: it continues."""
    max_cost_usd: float | None = Field(None, gt=0)
    """Cost of all attempts in US dollars, earlier sessions included, at which the run stops; it can be
    resumed; also when the cost of one is not known. Calls in flight then still end. null: no limit."""
    show: Literal["auto", "on", "off"] = "auto"
    """Answers on standard output as they are durable. auto: on a terminal, of standard input and of runs of at most 100
    rows; on and off: always and never."""
    table: Literal["csv", "jsonl", "parquet", "arrow"] | None = None
    """A table next to results.jsonl: the columns of each row, its answer or error, target, tokens, cost and latency.
    parquet and arrow need the extra `parquet`. null: none."""
    media: Literal["inline", "files"] = "inline"
    """The form of images and audio in results. inline: base64 in results.jsonl; files: the folder `media` of the run's
    directory, and their paths in results.jsonl."""
