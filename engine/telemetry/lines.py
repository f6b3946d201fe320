"""The part of a line of results.jsonl that is counted; the rest is skipped, not decoded."""

from __future__ import annotations

import msgspec

from engine.core.request import Usage


class LineAttempt(msgspec.Struct):
    """What a line says of one attempt. Fields as in `engine.request.Attempt`."""

    target: str
    outcome: str
    key: str | None = None
    role: str = "first"
    duration_s: float = 0.0
    first_token_s: float | None = None
    usage: Usage | None = None
    cost: float | None = None


class LineRecord(msgspec.Struct):
    """What a line says of how its request was served. Fields as in `engine.request.EngineRecord`."""

    target: str | None = None
    attempts: list[LineAttempt] = []
    priority: str = "normal"
    queued_s: float = 0.0
    total_s: float = 0.0
    first_token_s: float | None = None
    cost: float | None = None
    cache: str | None = None


class _Error(msgspec.Struct):
    kind: str = "internal"


class _WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    usage: _WireUsage | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class Line(msgspec.Struct):
    """A line of results.jsonl."""

    engine: LineRecord
    error: _Error | None = None
    response: _Response | None = None

    @property
    def outcome(self) -> str:
        """`ok`, or a word of the failure vocabulary."""
        return self.error.kind if self.error else "ok"

    @property
    def usage(self) -> Usage | None:
        """What the reply says of its tokens."""
        usage = self.response.body.usage if self.response and self.response.body else None
        return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else None


read_line = msgspec.json.Decoder(Line).decode
"""Raises msgspec.DecodeError for another line."""
