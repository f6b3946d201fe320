"""What became of requests, counted as they finish: outcomes, latencies, tokens and cost, in all and by target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from engine.request import Result
from engine.telemetry.histogram import Histogram


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Attempt(msgspec.Struct):
    target: str
    outcome: str
    duration_s: float = 0.0
    first_token_s: float | None = None
    usage: _Usage | None = None


class _Record(msgspec.Struct):
    target: str | None = None
    attempts: list[_Attempt] = []
    priority: str = "normal"
    queued_s: float = 0.0
    total_s: float = 0.0
    first_token_s: float | None = None
    cost: float | None = None


class _Error(msgspec.Struct):
    kind: str = "internal"


class _WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    usage: _WireUsage | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Line(msgspec.Struct):
    """The part of a line of results.jsonl that is counted; the rest is skipped, not decoded."""

    engine: _Record
    error: _Error | None = None
    response: _Response | None = None


class _UsageLike(Protocol):
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


class _AttemptLike(Protocol):
    @property
    def target(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def usage(self) -> _UsageLike | None: ...


class _RecordLike(Protocol):
    @property
    def target(self) -> str | None: ...
    @property
    def attempts(self) -> Sequence[_AttemptLike]: ...
    @property
    def priority(self) -> str: ...
    @property
    def queued_s(self) -> float: ...
    @property
    def total_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def cost(self) -> float | None: ...


_read_line = msgspec.json.Decoder(_Line).decode


class Tally:
    """Counts of one group of requests. Times are in seconds."""

    __slots__ = (
        "attempt_outcomes",
        "attempts",
        "cost",
        "first_token",
        "input_tokens",
        "latency",
        "ok",
        "output_tokens",
        "queue",
        "requests",
        "retries",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.ok = 0
        self.attempts = 0
        self.retries = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost: float | None = None
        self.attempt_outcomes: dict[str, int] = {}
        self.latency = Histogram()
        self.first_token = Histogram()
        self.queue = Histogram()

    def summary(self, wall_s: float | None) -> dict[str, Any]:
        """Rates need `wall_s`, the seconds that all of it took."""
        record: dict[str, Any] = {
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.requests - self.ok,
            "attempts": self.attempts,
            "retries": self.retries,
            "attempt_outcomes": dict(sorted(self.attempt_outcomes.items())),
            "tokens": {"input": self.input_tokens, "output": self.output_tokens},
            "cost": self.cost,
            "latency_s": self.latency.summary(),
            "first_token_s": self.first_token.summary(),
            "queue_s": self.queue.summary(),
        }
        if wall_s:
            record["requests_per_s"] = round(self.requests / wall_s, 3)
            record["input_tokens_per_s"] = round(self.input_tokens / wall_s, 3)
            record["output_tokens_per_s"] = round(self.output_tokens / wall_s, 3)
        return record


class Metrics:
    """Aggregates results one by one, in memory that does not grow with their number.

    A group's latency is that of whole requests that succeeded; a target's is that of its successful attempts.
    """

    def __init__(self) -> None:
        self.total = Tally()
        self.outcomes: dict[str, int] = {}
        self.priorities: dict[str, Tally] = {}
        self.targets: dict[str, Tally] = {}

    def add(self, result: Result) -> None:
        """Counts a result."""
        usage = result.usage
        self._count(
            "ok" if result.error is None else result.error.kind,
            result.engine,
            usage.input_tokens if usage else 0,
            usage.output_tokens if usage else 0,
        )

    def add_line(self, line: bytes) -> None:
        """Counts a line of results.jsonl. Raises msgspec.DecodeError for another line."""
        read = _read_line(line)
        usage = read.response.body.usage if read.response and read.response.body else None
        self._count(
            read.error.kind if read.error else "ok",
            read.engine,
            (usage.prompt_tokens or 0) if usage else 0,
            (usage.completion_tokens or 0) if usage else 0,
        )

    def _count(self, outcome: str, record: _RecordLike, input_tokens: int, output_tokens: int) -> None:
        """The tokens given are used where no attempt says its own."""
        ok = outcome == "ok"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        group = self.priorities.get(record.priority)
        if group is None:
            group = self.priorities[record.priority] = Tally()
        target = self._target(record.target) if record.target else None
        spent_input, spent_output = self._attempts(record.attempts)
        if not spent_input and not spent_output and (input_tokens or output_tokens):
            spent_input, spent_output = input_tokens, output_tokens
            if target is not None:
                target.input_tokens += input_tokens
                target.output_tokens += output_tokens
        for tally in (self.total, group):
            tally.requests += 1
            tally.attempts += len(record.attempts)
            tally.retries += max(0, len(record.attempts) - 1)
            tally.input_tokens += spent_input
            tally.output_tokens += spent_output
            tally.queue.add(record.queued_s)
            if ok:
                tally.ok += 1
                tally.latency.add(record.total_s)
            if record.first_token_s is not None:
                tally.first_token.add(record.first_token_s)
            if record.cost is not None:
                tally.cost = (tally.cost or 0.0) + record.cost
        if target is not None:
            target.requests += 1
            target.ok += ok
            target.queue.add(record.queued_s)
            if record.cost is not None:
                target.cost = (target.cost or 0.0) + record.cost

    def _attempts(self, attempts: Sequence[_AttemptLike]) -> tuple[int, int]:
        """Counts attempts for their targets; gives the tokens of all of them, the failed ones too."""
        input_tokens = output_tokens = 0
        before: str | None = None
        for attempt in attempts:
            target = self._target(attempt.target)
            target.attempts += 1
            target.retries += attempt.target == before
            before = attempt.target
            target.attempt_outcomes[attempt.outcome] = target.attempt_outcomes.get(attempt.outcome, 0) + 1
            if attempt.outcome == "ok":
                target.latency.add(attempt.duration_s)
            if attempt.first_token_s is not None:
                target.first_token.add(attempt.first_token_s)
            if attempt.usage is not None:
                target.input_tokens += attempt.usage.input_tokens
                target.output_tokens += attempt.usage.output_tokens
                input_tokens += attempt.usage.input_tokens
                output_tokens += attempt.usage.output_tokens
        return input_tokens, output_tokens

    def _target(self, name: str) -> Tally:
        tally = self.targets.get(name)
        if tally is None:
            tally = self.targets[name] = Tally()
        return tally

    def summary(self, wall_s: float | None = None) -> dict[str, Any]:
        """Everything counted, as plain data. `wall_s`, the seconds that it took, adds the rates."""
        record = self.total.summary(wall_s)
        record.pop("attempt_outcomes")
        if wall_s is not None:
            record["wall_s"] = round(wall_s, 3)
        record["outcomes"] = dict(sorted(self.outcomes.items(), key=lambda item: (item[0] != "ok", -item[1], item[0])))
        record["targets"] = {name: tally.summary(wall_s) for name, tally in self.targets.items()}
        record["priorities"] = {
            name: self.priorities[name].summary(wall_s) for name in ("high", "normal", "low") if name in self.priorities
        }
        return record
