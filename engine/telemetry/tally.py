"""Counts of requests and of attempts. Each can be merged, so that every view of a run is a sum of the same cells."""

from __future__ import annotations

from typing import Any, Protocol

from engine.core.prices import PICO
from engine.core.usage import Usage
from engine.telemetry.histogram import Histogram

ROLES = ("first", "retry", "fallback", "hedge", "rescue")
"""The reasons for an attempt."""


class AttemptLike(Protocol):
    """An Attempt, or its fields in a line of results.jsonl."""

    @property
    def target(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def role(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def cost(self) -> float | None: ...


class RequestTally:
    """Requests by outcome, and their times in seconds: latency of those that succeeded, first token, queue."""

    __slots__ = ("cached", "cost_unknown", "first_token", "latency", "outcomes", "queue")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.cached: dict[str, int] = {}
        """Requests without an attempt of their own: `hit` from the cache, `shared` with an equal request."""
        self.cost_unknown = 0
        """Requests that were tried, of unknown cost in whole or in part."""
        self.latency = Histogram()
        self.first_token = Histogram()
        self.queue = Histogram()

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def ok(self) -> int:
        return self.outcomes.get("ok", 0)

    def merge(self, other: RequestTally) -> None:
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        for how, count in other.cached.items():
            self.cached[how] = self.cached.get(how, 0) + count
        self.cost_unknown += other.cost_unknown
        self.latency.merge(other.latency)
        self.first_token.merge(other.first_token)
        self.queue.merge(other.queue)

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.requests - self.ok,
            "outcomes": _ordered(self.outcomes),
            "cached": dict(sorted(self.cached.items())),
            "cost_unknown": self.cost_unknown,
            "latency_s": self.latency.summary(),
            "first_token_s": self.first_token.summary(),
            "queue_s": self.queue.summary(),
        }


class AttemptTally:
    """Attempts by role and outcome, what they used, and their times in seconds."""

    __slots__ = (
        "cost_estimated", "cost_unknown", "counts", "estimated", "estimates", "first_token", "latency", "lost",
        "picodollars", "speed", "usage",
    )  # fmt: skip

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        """By role and outcome."""
        self.usage = Usage()
        self.lost = Usage()
        """The part of `usage` of attempts that did not bring the answer."""
        self.estimates = 0
        """Attempts whose usage is an estimate, because the provider did not report it."""
        self.estimated = Usage()
        """The tokens that these may have used; not part of `usage`, which providers reported."""
        self.picodollars: int | None = None
        """The sum of the known costs, an integer so that the order does not matter; None if none is known."""
        self.cost_estimated = 0
        """The part of it that rests on estimates, in picodollars."""
        self.cost_unknown = 0
        """Attempts that used something of unknown cost."""
        self.latency = Histogram()
        """Duration of the successful attempts."""
        self.first_token = Histogram()
        self.speed = Histogram()
        """Output tokens a second of a successful attempt, the wait for its first token included."""

    @property
    def cost(self) -> float | None:
        """Returns the sum of the known costs, in US dollars; None if none is known."""
        return None if self.picodollars is None else self.picodollars / PICO

    def add(self, attempt: AttemptLike) -> None:
        outcome = attempt.outcome
        counted = (attempt.role, outcome)
        self.counts[counted] = self.counts.get(counted, 0) + 1
        usage = attempt.usage
        if usage is not None:
            self.spend(usage, outcome, attempt.duration_s)
        if outcome == "ok":
            self.latency.add(attempt.duration_s)
        if attempt.first_token_s is not None:
            self.first_token.add(attempt.first_token_s)
        if attempt.cost is not None:
            self.pay(attempt.cost, estimated=usage is not None and usage.estimated)
        elif usage is not None or outcome == "ok":
            self.cost_unknown += 1

    def pay(self, cost: float, *, estimated: bool = False) -> None:
        """Counts a known cost, in US dollars."""
        paid = round(cost * PICO)
        self.picodollars = (self.picodollars or 0) + paid
        if estimated:
            self.cost_estimated += paid

    def spend(self, usage: Usage, outcome: str, duration_s: float) -> None:
        """Counts the tokens of an attempt."""
        if usage.estimated:
            self.estimates += 1
            self.estimated.add(usage)
            return
        self.usage.add(usage)
        if outcome != "ok":
            self.lost.add(usage)
        elif usage.output_tokens and duration_s > 0:
            self.speed.add(usage.output_tokens / duration_s)

    def merge(self, other: AttemptTally) -> None:
        for counted, count in other.counts.items():
            self.counts[counted] = self.counts.get(counted, 0) + count
        self.usage.add(other.usage)
        self.lost.add(other.lost)
        self.estimates += other.estimates
        self.estimated.add(other.estimated)
        if other.picodollars is not None:
            self.picodollars = (self.picodollars or 0) + other.picodollars
        self.cost_estimated += other.cost_estimated
        self.cost_unknown += other.cost_unknown
        self.latency.merge(other.latency)
        self.first_token.merge(other.first_token)
        self.speed.merge(other.speed)

    def summary(self, wall_s: float | None) -> dict[str, Any]:
        """Returns the counts; rates need `wall_s`, the duration in seconds."""
        roles: dict[str, int] = {}
        outcomes: dict[str, int] = {}
        helped: dict[str, int] = {}
        for (role, outcome), count in self.counts.items():
            roles[role] = roles.get(role, 0) + count
            outcomes[outcome] = outcomes.get(outcome, 0) + count
            if outcome == "ok" and role != "first":
                helped[role] = helped.get(role, 0) + count
        record: dict[str, Any] = {
            "attempts": sum(self.counts.values()),
            "retries": roles.get("retry", 0),
            "fallbacks": roles.get("fallback", 0),
            "hedges": roles.get("hedge", 0),
            "rescues": roles.get("rescue", 0),
            "helped": helped,
            "attempt_outcomes": _ordered(outcomes),
            "tokens": {"input": self.usage.input_tokens, "output": self.usage.output_tokens, **self.usage.kinds()},
            "lost_tokens": {"input": self.lost.input_tokens, "output": self.lost.output_tokens},
            "tokens_estimated": {
                "attempts": self.estimates,
                "input": self.estimated.input_tokens,
                "output": self.estimated.output_tokens,
            },
            "pieces": self.usage.pieces(),
            "cost": self.cost,
            "cost_estimated": self.cost_estimated / PICO,
            "attempts_cost_unknown": self.cost_unknown,
            "tokens_per_s": self.speed.summary(),
        }
        if wall_s:
            record["input_tokens_per_s"] = round(self.usage.input_tokens / wall_s, 3)
            record["output_tokens_per_s"] = round(self.usage.output_tokens / wall_s, 3)
        return record

    def times(self) -> dict[str, Any]:
        """Returns the times of attempts, not those of whole requests."""
        return {"latency_s": self.latency.summary(), "first_token_s": self.first_token.summary()}


def _ordered(counts: dict[str, int]) -> dict[str, int]:
    """`ok` first, then the most frequent."""
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "ok", -item[1], item[0])))
