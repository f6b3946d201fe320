"""The simulated provider's batch jobs: what they hold, how far they are, and what comes out. Pure functions of time.

Each request of a job is answered like a live call, when the job is done: the faults of the provider hit it, too. What
goes wrong with jobs as a whole is `provider.batch`. The three wires are in `batches_openai.py`, `…_anthropic.py` and
`…_gemini.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from engine.core.clock import Clock
from engine.core.errors import InvalidRequest
from engine.dialects.server import ClientCall
from engine.schemas.simulated import SimulatedBatchSpec
from engine.simulation import answers
from engine.simulation.provider import Failure, SimulatedProvider
from engine.simulation.wire import Wire


@dataclass(slots=True)
class Reply:
    """An HTTP reply. `lost`: it is never sent; the connection breaks in its place."""

    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    lost: bool = False


@dataclass(slots=True)
class Called:
    """A call of a batch API."""

    route: str
    """METHOD and path, as the API's `routes` have them."""
    parts: Mapping[str, str]
    """The values of the path's braces."""
    query: Mapping[str, str]
    key: str | None
    headers: Mapping[str, str]
    content: bytes


class Api(Protocol):
    """One wire of batch jobs. Made with `cls(store, wires)`."""

    routes: tuple[tuple[str, str], ...]

    def __init__(self, store: BatchStore, wires: Mapping[str, Wire]) -> None: ...

    def answer(self, called: Called) -> Reply:
        """Raises InvalidRequest."""
        ...


@dataclass(slots=True)
class Asked:
    """One request of a job."""

    id: str
    path: str
    parts: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Got:
    """The outcome of a request: an HTTP reply, or the reason why it has no reply."""

    id: str
    status: int = 200
    body: bytes = b""
    request_id: str = ""
    never: str | None = None
    """expired or cancelled: not processed."""


@dataclass(slots=True)
class SimulatedJob:
    """One job. Times are seconds of the monotonic clock, but for `created`, which is since 1970."""

    id: str
    api: str
    key: str | None
    created: float
    began: float
    ready: float
    asked: list[Asked]
    about: dict[str, Any] = field(default_factory=dict)
    """Values that its wire keeps: a tag, a file, an endpoint."""
    refused: list[tuple[int, str, str]] | None = None
    """Its failure: line (0: no particular one), code, message. None: it did not fail."""
    cancelled: bool = False
    got: list[Got] | None = None


class BatchStore:
    """All jobs and files of one simulated provider."""

    def __init__(self, provider: SimulatedProvider, spec: SimulatedBatchSpec, clock: Clock, seed: int) -> None:
        self.provider = provider
        self.spec = spec
        self.jobs: dict[str, SimulatedJob] = {}
        self.files: dict[str, bytes] = {}
        self._clock = clock
        self._rng = Random(f"{seed} batches")
        self._lost = spec.lost_replies
        self._failing = spec.failed_creations
        self._crowded = spec.crowded
        self._bad_lines = spec.bad_lines
        self._answered = 0

    @property
    def now(self) -> float:
        return self._clock.monotonic()

    @property
    def wall(self) -> float:
        return self._clock.wall()

    def keep(self, content: bytes) -> str:
        """A file's number."""
        name = str(len(self.files) + 1)
        self.files[name] = content
        return name

    def make(self, id: str, api: str, key: str | None, asked: list[Asked], **about: Any) -> SimulatedJob:
        job = SimulatedJob(id, api, key, self.wall, self.now, self.now + self.spec.takes_s, asked, about)
        self.jobs[id] = job
        if self._crowded:
            self._crowded -= 1
            job.refused = [(0, "token_limit_exceeded", "Enqueued token limit reached. Try again later.")]
        elif self._bad_lines:
            job.refused = [(line, "invalid_value", f"simulated: line {line} is not valid") for line in self._bad_lines]
            self._bad_lines = ()
        return job

    def fails(self) -> bool:
        """Returns True if this creation fails before it makes anything."""
        self._failing -= 1
        return self._failing >= 0

    def loses(self) -> bool:
        """Returns True if the reply to this creation gets lost."""
        self._lost -= 1
        return self._lost >= 0

    def listed(self, api: str, key: str | None) -> list[SimulatedJob]:
        """A key's jobs, the newest first; one that is very new may not be there yet."""
        late = self.now - self.spec.unlisted_s
        found = [job for job in self.jobs.values() if job.api == api and job.key == key and job.began <= late]
        return found[::-1]

    def done(self, job: SimulatedJob) -> bool:
        return job.cancelled or job.refused is not None or self.now >= job.ready

    def share(self, job: SimulatedJob) -> float:
        """Returns the share of its time that is over."""
        return 1.0 if self.done(job) else (self.now - job.began) / max(1e-9, job.ready - job.began)

    def cancel(self, job: SimulatedJob, wires: Mapping[str, Wire]) -> None:
        if not self.done(job):
            # What is answered by now stays so.
            answered = int(len(job.asked) * self.share(job))
            job.cancelled = True
            job.got = [self._answer(each, wires, job.key) for each in job.asked[:answered]]
            job.got += [Got(each.id, never="cancelled") for each in job.asked[answered:]]

    def outcome(self, job: SimulatedJob, wires: Mapping[str, Wire]) -> list[Got]:
        """The outcomes of its requests, made at first use."""
        if job.got is None:
            expired = int(len(job.asked) * self.spec.expired)
            kept = len(job.asked) - expired
            job.got = [self._answer(each, wires, job.key) for each in job.asked[:kept]]
            job.got += [Got(each.id, never="expired") for each in job.asked[kept:]]
        return job.got

    def lines(self, got: list[Got], ordered: bool = False) -> list[Got]:
        """The results as they are written down: not all, some twice, in any order."""
        written = []
        for each in got:
            if self._rng.random() >= self.spec.missing:
                written.append(each)
            if self._rng.random() < self.spec.doubled:
                written.append(each)
        if not ordered:
            self._rng.shuffle(written)
        return written

    def as_dict(self) -> list[dict[str, Any]]:
        """All jobs with the bodies of their requests, to check what arrived."""
        return [
            {
                "id": job.id,
                "api": job.api,
                "key": job.key,
                **job.about,
                "requests": [e.body.decode() for e in job.asked],
            }
            for job in self.jobs.values()
        ]

    def _answer(self, asked: Asked, wires: Mapping[str, Wire], key: str | None) -> Got:
        self._answered += 1
        request_id = f"simulated-batch-{self._answered}"
        wire = next(wire for wire in wires.values() if any(path == asked.path for _, path in wire.routes))
        try:
            call: ClientCall = wire.read(asked.path.format(**asked.parts), asked.parts, {}, asked.body)
        except InvalidRequest as error:
            failure = Failure("invalid_request", error.message, 400)
            status, _, body = wire.refusal(failure, request_id, self.wall)
            return Got(asked.id, status, body, request_id)
        plan = self.provider.admit(
            key,
            answers.input_tokens(call.task, call.body),
            answers.output_limit(call.task, call.body),
            begun=answers.begun(call.task, call.body),
        )
        failed = plan.failure
        try:
            if failed is not None and failed.status is not None:
                status, _, body = wire.refusal(failed, request_id, self.wall)
                return Got(asked.id, status, body, request_id)
            body = wire.whole(wire.head(call, request_id, int(self.wall)), plan)
            return Got(asked.id, 200, body, request_id)
        finally:
            self.provider.leave(plan, answered=failed is None)
