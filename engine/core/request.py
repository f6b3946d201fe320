"""Requests, results, and the context of one call: what the stages of the chain exchange."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from engine.core.errors import InferenceError, InvalidRequest, nearest
from engine.core.media_access import MediaAccess
from engine.core.reply_text import first_text
from engine.core.stream import ChunkStream
from engine.core.task_table import ENDPOINTS as ENDPOINTS
from engine.core.usage import Usage

PRIORITIES = {"high": 0, "normal": 1, "low": 2}
"""Tier by name; a smaller tier goes first."""


@dataclass(slots=True)
class Request:
    """One unit of inference.

    `body` is an OpenAI request body; `model` in it may be left out. `priority` is high, normal or low.
    `deadline_s` limits the request over all its attempts, in seconds. `metadata` is returned with the result and
    never sent to a provider. Raises InvalidRequest.
    """

    task: str
    body: dict[str, Any]
    id: str | None = None
    priority: str = "normal"
    deadline_s: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    media: MediaAccess | None = None
    """The media that may be read for it; None: what the run spec's `media` allows this machine's user. A server gives
    its clients' requests `INLINE_ONLY` (`core.media_access`)."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) or self.task not in ENDPOINTS:
            raise InvalidRequest(f"task: {self.task!r} is not a task; {nearest(self.task, ENDPOINTS)}")
        if not isinstance(self.body, dict):
            raise InvalidRequest(f"body: expected an object, got {type(self.body).__name__}")
        if not isinstance(self.priority, str) or self.priority not in PRIORITIES:
            raise InvalidRequest(f"priority: {self.priority!r} is not a priority; one of: high, normal, low")
        if self.deadline_s is not None and not (isinstance(self.deadline_s, int | float) and self.deadline_s > 0):
            raise InvalidRequest(f"deadline_s: expected seconds, more than 0, got {self.deadline_s!r}")
        if self.id is None:
            self.id = os.urandom(16).hex()


@dataclass(slots=True)
class RateHints:
    """The limits that a provider's reply reports: limit, remaining units, seconds until all are back."""

    requests: tuple[float, float, float] | None = None
    """Limit, remaining, seconds until the limit is whole again; None: not said."""
    tokens: tuple[float, float, float] | None = None
    """Of prompt and answer together."""
    input_tokens: tuple[float, float, float] | None = None
    output_tokens: tuple[float, float, float] | None = None


@dataclass(slots=True)
class Attempt:
    """One try of one request against one target. Times are in seconds."""

    target: str
    key: str | None = None
    """The key's name, never its value."""
    role: str = "first"
    """first, retry, fallback, hedge or rescue."""
    why: str | None = None
    """The reason for this attempt, key and endpoint; None for a first one without a choice."""
    endpoint: str | None = None
    """Its endpoint, if the target has several."""
    outcome: str = "running"
    """`ok`, or a word of the failure vocabulary."""
    started_s: float = 0.0
    """After the request was submitted."""
    duration_s: float = 0.0
    first_token_s: float | None = None
    """Streaming: from the attempt's start to its first chunk."""
    status: int | None = None
    provider_request_id: str | None = None
    message: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    """In US dollars; None: unknown, unless nothing was used. An estimate where the usage is one."""
    batch: bool = False
    """It was a row of a batch job: asynchronous, at the provider's lower price."""
    place: int = 0
    """Inside the chain: the index of its endpoint."""
    sent: bool = False
    """Inside the chain: the provider may have seen it."""
    hints: Callable[[], RateHints | None] | None = None
    """Inside the chain: reads the limits that the reply reports, for the rate limiter."""

    def as_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "target": self.target,
            "key": self.key,
            "role": self.role,
            "outcome": self.outcome,
            "started_s": round(self.started_s, 6),
            "duration_s": round(self.duration_s, 6),
            "usage": self.usage.as_dict() if self.usage else None,
            "cost": self.cost,
        }
        if self.first_token_s is not None:
            record["first_token_s"] = round(self.first_token_s, 6)
        if self.batch:
            record["batch"] = True
        for name in ("why", "endpoint", "status", "provider_request_id", "message"):
            value = getattr(self, name)
            if value is not None:
                record[name] = value
        return record


@dataclass(slots=True)
class EngineRecord:
    """The record of a request's way through the chain. Times are in seconds."""

    target: str | None = None
    """The target of the last attempt."""
    attempts: list[Attempt] = field(default_factory=list)
    max_attempts: int | None = None
    """The most attempts, over retries, fallbacks, hedges and rescues; None: no limit."""
    cache: str | None = None
    """hit: answered from the cache; shared: by an equal request in flight."""
    priority: str = "normal"
    queued_s: float = 0.0
    """Waited in queues, over all attempts."""
    total_s: float = 0.0
    first_token_s: float | None = None
    """Streaming: from submission to the first chunk."""
    cost: float | None = None
    """Of all attempts, in US dollars; None: unknown, as soon as that of one of them is."""
    cost_estimated: bool = False
    """A part of it is an estimate."""
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "target": self.target,
            "attempts": [attempt.as_dict() for attempt in self.attempts],
            "max_attempts": self.max_attempts,
            "priority": self.priority,
            "queued_s": round(self.queued_s, 6),
            "total_s": round(self.total_s, 6),
            "cost": self.cost,
        }
        if self.cost_estimated:
            record["cost_estimated"] = True
        if self.first_token_s is not None:
            record["first_token_s"] = round(self.first_token_s, 6)
        if self.cache is not None:
            record["cache"] = self.cache
        if self.warnings:
            record["warnings"] = self.warnings
        if self.metadata:
            record["metadata"] = self.metadata
        return record


@dataclass(slots=True)
class Result:
    """The outcome of one request. `body` is the OpenAI reply, or None if `error` is set."""

    id: str
    body: dict[str, Any] | None = None
    error: InferenceError | None = None
    usage: Usage | None = None
    engine: EngineRecord = field(default_factory=EngineRecord)
    stream: ChunkStream | None = None
    """Inside the chain, of a streaming call: the chunks to come instead of a body."""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def text(self) -> str | None:
        """The first text of the reply: of a chat, completion, response or transcription; None without one."""
        return first_text(self.body)

    def __repr__(self) -> str:
        record, answer = self.engine, self.text
        if self.error is not None:
            outcome = f"{self.error.kind}: {_short(self.error.message)}"
        else:
            outcome = repr(_short(answer)) if answer is not None else f"body: {', '.join(self.body or ()) or 'none'}"
        facts = [record.target or "no target", f"{record.total_s:.3g} s"]
        if self.usage is not None:
            facts.append(f"{self.usage.input_tokens}+{self.usage.output_tokens} tokens")
        if len(record.attempts) > 1:
            facts.append(f"{len(record.attempts)} attempts")
        return f"<Result {'ok' if self.ok else 'failed'} {outcome} ({', '.join(facts)})>"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


class Context:
    """The signals that stages exchange about one request in flight. Each names its writer and its readers.

    `FORKED` signals pass to another attempt at the same time, `OWN` ones belong to one attempt.
    """

    # Most of these stay as they are for most requests: a class attribute costs nothing until it is set.
    deadline: float | None = None
    """Monotonic seconds; None: not set, or not started yet. Written by deadline; read by every stage that waits."""
    on_first_attempt: Callable[[], None] | None = None
    """Starts a deadline that does not count the queue. Written by deadline; read by route (and passed on by cache)."""
    queued_at: float | None = None
    """The time when the request first entered a queue; a retry keeps its rank. Written and read by queue."""
    attempt: Attempt | None = None
    """The attempt in flight, or the last one. Written by route; read by the stages inside it and the executor."""
    last_key: str | None = None
    """The key of the attempt that just failed. Written by route; read by route (cleared by fallback)."""
    last_endpoint: int | None = None
    """The endpoint of the attempt that just failed. Written by route; read by route (cleared by fallback)."""
    role = "first"
    """The role of the next attempt. Written by `next_attempt`; read by route."""
    why: str | None = None
    """The reason for the next attempt. Written by `next_attempt`; read by route."""
    order: tuple[int, ...] | None = None
    """Indices of the targets to try, in order; None: all, as in the run spec. Written by rescue; read by fallback."""
    patient = False
    """Open circuits are waited for without a limit, for a job. Written by the engine; read by fallback."""
    prefill: str | None = None
    """The beginning of the answer that the next attempt continues. Written by rescue; read by parameters."""
    prefill_tokens = 0
    """The estimated tokens of `prefill`. Written by rescue; read by parameters."""
    prefilled = False
    """The attempt in flight was given `prefill`. Written by parameters; read by rescue."""
    last_try = True
    """No other try at this target follows the one in flight. Written by retry; read by batch."""
    row: int | None = None
    """The index of the run's row. Written and read by batch jobs."""
    cost: tuple[float, float, float, float] | None = None
    """The request's cost to the rate limit of its target. Written by preflight; read by rate_limit."""

    FORKED: ClassVar[tuple[str, ...]] = (
        "deadline", "on_first_attempt", "queued_at", "last_key", "last_endpoint", "patient", "order", "prefill",
        "prefill_tokens",
    )  # fmt: skip
    OWN: ClassVar[tuple[str, ...]] = ("attempt", "role", "why", "prefilled", "last_try", "row", "cost")

    def __init__(self, record: EngineRecord, submitted_at: float, tier: int = 1, stream: bool = False) -> None:
        self.record = record
        self.submitted_at = submitted_at
        """Monotonic seconds."""
        self.tier = tier
        self.stream = stream
        self.tries: dict[str, Any] = {}
        """The tries at each target. Written and read by retry and hedge."""

    def fork(self) -> Context:
        """Returns a context for another attempt at the same time; the record is shared."""
        twin = Context(self.record, self.submitted_at, self.tier, self.stream)
        known = vars(self)
        for name in self.FORKED:
            if name in known:
                setattr(twin, name, known[name])
        return twin

    def next_attempt(self, role: str, why: str) -> None:
        """Sets the role of the next attempt and the reason for it."""
        self.role, self.why = role, why

    @property
    def spent(self) -> bool:
        """True when the request has had all the attempts that it may have; its result then says so."""
        limit = self.record.max_attempts
        if limit is None or len(self.record.attempts) < limit:
            return False
        self.warn(f"all its {limit} attempts are used up (policy.budget.max_attempts)")
        return True

    def warn(self, warning: str) -> None:
        """Adds a warning to the result, once."""
        if warning not in self.record.warnings:
            self.record.warnings.append(warning)
