"""The part of a line of results.jsonl that is counted; the rest is skipped, not decoded."""

from __future__ import annotations

import msgspec

from engine.core.usage import Usage


class LineAttempt(msgspec.Struct):
    """The part of a line about one attempt. Fields as in `engine.request.Attempt`."""

    target: str
    outcome: str
    key: str | None = None
    role: str = "first"
    duration_s: float = 0.0
    first_token_s: float | None = None
    usage: Usage | None = None
    cost: float | None = None


class LineRecord(msgspec.Struct):
    """The part of a line about the serving of its request. Fields as in `engine.request.EngineRecord`."""

    target: str | None = None
    attempts: list[LineAttempt] = []
    priority: str = "normal"
    queued_s: float = 0.0
    total_s: float = 0.0
    first_token_s: float | None = None
    cost: float | None = None
    usage: Usage | None = None
    """The reply's usage, if no attempt has its own."""
    cache: str | None = None


class _Error(msgspec.Struct):
    kind: str = "internal"


class Line(msgspec.Struct):
    """A line of results.jsonl, by the engine's own fields: a provider's body may hold anything."""

    engine: LineRecord
    error: _Error | None = None

    @property
    def outcome(self) -> str:
        """`ok`, or a word of the failure vocabulary."""
        return self.error.kind if self.error else "ok"


read_line = msgspec.json.Decoder(Line).decode
"""Raises msgspec.DecodeError for another line."""
