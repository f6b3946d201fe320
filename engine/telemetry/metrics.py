"""The outcomes of requests, counted as they finish, and their views: in all, by target, model, key and priority."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from engine.core.request import PRIORITIES, Result
from engine.core.usage import Usage
from engine.telemetry.lines import LineRecord, read_line
from engine.telemetry.tally import AttemptLike, AttemptTally, RequestTally

RequestCell = tuple[str | None, str]
"""Target that answered or failed last, and priority."""
AttemptCell = tuple[str, str | None, str]
"""Target, name of the key, and priority."""

_TARGET = re.compile(r"[^/]*/(?P<model>.+?)(?:@(?:auto|cpu|cuda|openvino))?(?:#\d+)?")
_Tally = TypeVar("_Tally", RequestTally, AttemptTally)


class _RecordLike(Protocol):
    @property
    def target(self) -> str | None: ...
    @property
    def attempts(self) -> Sequence[AttemptLike]: ...
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
    @property
    def cache(self) -> str | None: ...


def model_of(target: str) -> str:
    """The model in a target's name, `provider/model`, without the hardware and the number that may follow."""
    found = _TARGET.fullmatch(target)
    return found["model"] if found else target


class Metrics:
    """Aggregates results one by one, in memory that does not grow with their number.

    The latency of a priority and of the whole is that of requests that succeeded; the latency of a target, a model or
    a key is that of its successful attempts.
    """

    def __init__(self) -> None:
        self.requests: dict[RequestCell, RequestTally] = {}
        self.attempts: dict[AttemptCell, AttemptTally] = {}

    def add(self, result: Result) -> None:
        """Counts a result."""
        self._count("ok" if result.error is None else result.error.kind, result.engine, result.usage)

    def add_line(self, line: bytes) -> None:
        """Counts a line of results.jsonl. Raises msgspec.DecodeError for another line."""
        read = read_line(line)
        self._count(read.outcome, read.engine, read.engine.usage)

    def add_unreadable(self, ok: bool) -> None:
        """Counts a request of which only `ok` is known: its cost is unknown."""
        self._count("ok" if ok else "internal", LineRecord(), None)
        self.requests[None, "normal"].cost_unknown += 1

    @property
    def total(self) -> RequestTally:
        """Returns the sum of all requests."""
        return _merged(RequestTally, self.requests.values())

    def _count(self, outcome: str, record: _RecordLike, usage: Usage | None) -> None:
        """`usage` is the reply's; it counts if no attempt has its own."""
        cell = (record.target, record.priority)
        tally = self.requests.get(cell)
        if tally is None:
            tally = self.requests[cell] = RequestTally()
        tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
        tally.queue.add(record.queued_s)
        if outcome == "ok":
            tally.latency.add(record.total_s)
        if record.first_token_s is not None:
            tally.first_token.add(record.first_token_s)
        if record.cache is not None:
            tally.cached[record.cache] = tally.cached.get(record.cache, 0) + 1
        if record.attempts:
            used = self._count_attempts(record, usage)
            tally.cost_unknown += used and record.cost is None

    def _count_attempts(self, record: _RecordLike, usage: Usage | None) -> bool:
        """Returns True if anything was used: an attempt that was refused costs nothing."""
        spent = priced = answered = False
        for attempt in record.attempts:
            tally = self._tally(attempt, record.priority)
            tally.add(attempt)
            spent = spent or attempt.usage is not None
            priced = priced or attempt.cost is not None
            answered = answered or attempt.outcome == "ok"
        if not spent and usage is not None:
            tally.spend(usage, attempt.outcome, attempt.duration_s)
        if not priced and record.cost is not None:
            tally.pay(record.cost)
        return spent or answered

    def _tally(self, attempt: AttemptLike, priority: str) -> AttemptTally:
        cell = (attempt.target, attempt.key, priority)
        tally = self.attempts.get(cell)
        if tally is None:
            tally = self.attempts[cell] = AttemptTally()
        return tally

    def summary(self, wall_s: float | None = None) -> dict[str, Any]:
        """Returns all counts as plain data. `wall_s`, the duration in seconds, adds the rates."""
        record = self._view(self.requests.values(), self.attempts.values(), wall_s)
        if wall_s is not None:
            record["wall_s"] = round(wall_s, 3)
        targets = dict.fromkeys([*(cell[0] for cell in self.attempts), *(cell[0] for cell in self.requests)])
        models = dict.fromkeys(model_of(target) for target in targets if target)
        keys = dict.fromkeys(key for _, key, _ in self.attempts if key is not None)
        priorities = [name for name in PRIORITIES if any(cell[1] == name for cell in self.requests)]
        record["targets"] = {name: self._served({name}, wall_s) for name in targets if name}
        record["models"] = {
            name: self._served({target for target in targets if target and model_of(target) == name}, wall_s)
            for name in models
        }
        record["keys"] = {name: self._key(name, wall_s) for name in keys}
        record["priorities"] = {name: self._priority(name, wall_s) for name in priorities}
        return record

    def _view(
        self, requests: Iterable[RequestTally], attempts: Iterable[AttemptTally], wall_s: float | None
    ) -> dict[str, Any]:
        asked, tried = _merged(RequestTally, requests), _merged(AttemptTally, attempts)
        record = {**asked.summary(), **tried.summary(wall_s)}
        if wall_s:
            record["requests_per_s"] = round(asked.requests / wall_s, 3)
        return record

    def _served(self, targets: set[str], wall_s: float | None) -> dict[str, Any]:
        """Returns the counts of these targets."""
        asked = (tally for (target, _), tally in self.requests.items() if target in targets)
        tried = _merged(AttemptTally, (tally for (target, _, _), tally in self.attempts.items() if target in targets))
        return {**self._view(asked, [tried], wall_s), **tried.times()}

    def _key(self, name: str, wall_s: float | None) -> dict[str, Any]:
        tried = _merged(AttemptTally, (tally for (_, key, _), tally in self.attempts.items() if key == name))
        return {**tried.summary(wall_s), **tried.times()}

    def _priority(self, name: str, wall_s: float | None) -> dict[str, Any]:
        asked = (tally for (_, priority), tally in self.requests.items() if priority == name)
        tried = (tally for (_, _, priority), tally in self.attempts.items() if priority == name)
        return self._view(asked, tried, wall_s)


def _merged(kind: type[_Tally], tallies: Iterable[_Tally]) -> _Tally:
    whole = kind()
    for tally in tallies:
        whole.merge(tally)
    return whole
