"""Canonical chunks → Gemini's stream of responses.

A call comes whole on this wire, so its pieces are kept until it is complete; how the answer ended comes with the usage
in the last event. Source: as in `engine.dialects.gemini.stream`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InferenceError, Malformed, Overloaded
from engine.core.stream import Chunk
from engine.dialects.common.boundary import writes
from engine.dialects.gemini.server_errors import wire_error
from engine.dialects.gemini.server_reply import (
    FINISH_REASONS,
    response_tail,
    wire_call,
    wire_logprobs,
    wire_parts,
    wire_usage,
)

_encode = msgspec.json.Encoder().encode


class GeminiStreamEncoder:
    """The events of one stream."""

    __slots__ = ("_broken", "_calls", "_ends", "_model", "_said", "_tail", "_usage")

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._tail: dict[str, Any] | None = None
        """The fields of every event."""
        self._calls: dict[tuple[int, int], _Call] = {}
        """Calls that are not sent yet, by choice and index."""
        self._ends: dict[int, str] = {}
        """The finish reasons of the choices that have ended."""
        self._usage: dict[str, Any] | None = None
        self._said = False
        self._broken = False

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        if self._broken:
            return b""
        if chunk.restarted and self._said:
            return self.failed(Overloaded("the answer broke and began anew elsewhere; send the request again"))
        body = chunk.body
        if self._tail is None:
            self._tail = response_tail(body, self._model)
        if body.get("usage"):
            self._usage = wire_usage(body["usage"])
        elif chunk.usage is not None:
            usage = chunk.usage
            self._usage = wire_usage(
                {
                    "prompt_tokens": usage.input_tokens,
                    "completion_tokens": usage.output_tokens,
                    "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
                    "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                }
            )
        try:
            candidates = [self._candidate(choice) for choice in body.get("choices") or ()]
        except Malformed as error:
            return self.failed(error)
        candidates = [each for each in candidates if len(each) > 1]
        return self._event({"candidates": candidates}) if candidates else b""

    @writes
    def end(self) -> bytes:
        if self._broken:
            return b""
        try:
            calls = {index: self._complete(index) for index in {index for index, _ in self._calls}}
        except Malformed as error:
            return self.failed(error)
        candidates = [
            {
                "content": {"parts": calls.get(index) or [{"text": ""}], "role": "model"},
                "finishReason": self._ends.get(index, "STOP"),
                "index": index,
            }
            for index in sorted({*self._ends, *calls} or {0})
        ]
        return self._event({"candidates": candidates})

    def failed(self, error: InferenceError) -> bytes:
        self._broken = True
        return b"data: %s\r\n\r\n" % _encode(wire_error(error)[1])

    def _event(self, response: dict[str, Any]) -> bytes:
        self._said = True
        if self._usage is not None:
            response["usageMetadata"] = self._usage
        response.update(self._tail or response_tail({}, self._model))
        return b"data: %s\r\n\r\n" % _encode(response)

    def _candidate(self, choice: dict[str, Any]) -> dict[str, Any]:
        index, delta = choice.get("index") or 0, choice.get("delta") or {}
        candidate: dict[str, Any] = {"index": index}
        parts = wire_parts(delta)
        for call in delta.get("tool_calls") or ():
            place = (index, call.get("index") or 0)
            if place not in self._calls:
                # A new call: those before it are complete.
                parts += self._complete(index)
                self._calls[place] = _Call()
            self._calls[place].add(call)
        if choice.get("finish_reason"):
            self._ends[index] = FINISH_REASONS.get(choice["finish_reason"], "STOP")
            parts += self._complete(index)
        if parts:
            candidate["content"] = {"parts": parts, "role": "model"}
        if choice.get("logprobs"):
            candidate["logprobsResult"] = wire_logprobs(choice["logprobs"])
        return candidate

    def _complete(self, index: int) -> list[dict[str, Any]]:
        """The parts of a choice's calls that were kept."""
        places = [place for place in self._calls if place[0] == index]
        return [self._calls.pop(place).part() for place in places]


class _Call:
    """A call of which pieces have come."""

    __slots__ = ("_arguments", "_id", "_name", "_signature")

    def __init__(self) -> None:
        self._id: str | None = None
        self._name: str | None = None
        self._arguments: list[str] = []
        self._signature: str | None = None

    def add(self, piece: dict[str, Any]) -> None:
        function = piece.get("function") or {}
        self._id = piece.get("id") or self._id
        self._name = function.get("name") or self._name
        self._arguments.append(function.get("arguments") or "")
        google = (piece.get("extra_content") or {}).get("google") or {}
        self._signature = google.get("thought_signature") or self._signature

    def part(self) -> dict[str, Any]:
        return wire_call(self._id, self._name, "".join(self._arguments), self._signature)
