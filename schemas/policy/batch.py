"""`policy.batch`: many requests in one call, or in one job of the provider's batch API."""

from typing import Literal, Self

from pydantic import Field, model_validator

from engine.schemas.base import Spec


class JobSpec(Spec):
    """The use of the provider's batch API (strategy=provider): asynchronous jobs of many rows at a lower price."""

    max_rows: int = Field(10_000, ge=1)
    """Rows in one job; the provider's own limit, provider.batch.max_rows, counts where it is lower."""
    max_bytes: int = Field(100_000_000, ge=1024)
    """Bytes of one job's requests; the provider's own limit, provider.batch.max_bytes, counts where it is lower."""
    max_jobs: int = Field(4, ge=1)
    """Jobs at the provider at once. Their rows are in memory: about 3 kB each, without their text."""
    linger_s: float = Field(10.0, ge=0)
    """A job that is not full is sent when no row has joined it for so long, in seconds; at the end of the workload it
    is sent at once."""
    window: str = Field("24h", pattern=r"^[1-9][0-9]*[hd]$")
    """Time that the provider has for a job, in hours or days: 24h at OpenAI, 24h to 7d at Groq. Claude and Gemini take
    no such wish: 24 and 48 hours."""
    poll_s: float = Field(5.0, gt=0)
    """Time to the first question how far a job is, in seconds; also to the next try when a call of the job failed."""
    poll_factor: float = Field(1.5, ge=1)
    """Each wait is so many times the one before."""
    poll_max_s: float = Field(120.0, gt=0)
    """Longest wait between two questions, in seconds."""
    settle_s: float = Field(60.0, ge=0)
    """If a job's creation is unconfirmed, because the reply was lost: for so long, in seconds, the provider's
    list of jobs is looked through again before the job is sent once more. Also for so long a provider may not know a
    job, its results or an uploaded file before it is given up: replicas lag behind."""
    unanswered: Literal["live", "job", "dead"] = "live"
    """Rows that expired, were cancelled or failed with what another try may mend. live: a normal call at the full
    price; job: another job; dead: a dead letter."""
    max_tries: int = Field(3, ge=1)
    """unanswered=job: so many jobs for one row at most; then it is a dead letter. A job that the provider lost counts,
    whatever `unanswered` is."""

    @model_validator(mode="after")
    def _waits_grow(self) -> Self:
        if self.poll_max_s < self.poll_s:
            raise ValueError(f"poll_max_s must not be shorter than poll_s, {self.poll_s:g}")
        return self


class BatchSpec(Spec):
    """Combines compatible embedding requests into one call; a failed call is split until the bad row is alone.

    Not before a model in this process, which takes what waits whenever it is free.
    """

    strategy: Literal["combine", "provider"] = "combine"
    """combine: embedding requests travel together in live calls; provider: a run's rows go through the provider's batch
    API, at half the price and within a day."""
    enabled: bool = True
    """True: live embedding calls are combined, also those of strategy=provider."""
    max_size: int = Field(32, ge=1)
    """Requests in one call."""
    max_wait_s: float = Field(0.005, ge=0)
    """Longest wait of a batch's first request for others, in seconds."""
    max_calls: int = Field(2, ge=1)
    """Batches in flight at once for each kind of request; what arrives meanwhile is combined."""
    job: JobSpec = JobSpec()
