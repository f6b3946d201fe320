"""Gemini's stream of responses → canonical chunks.

Each event is a whole response with a piece of the answer; it has no terminator. A true end is the end of the bytes
after every candidate has told its `finishReason`. Source: the Gemini API's reference, "Generating content"
(streamGenerateContent). An error may be in the stream as plain JSON, not as an event: Google's own client reads it
so too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.errors import InferenceError, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.common.error_body import is_error
from engine.dialects.common.event_stream import JsonEventDecoder
from engine.dialects.common.json_body import UNREADABLE
from engine.dialects.gemini.errors import blocked, error_from, filtered
from engine.dialects.gemini.reply import (
    answer_of,
    failure_of,
    finish_of,
    is_empty,
    logprobs_of,
    tokens_of,
    usage_of,
)

_decode = msgspec.json.Decoder().decode
_TAIL_BYTES = 64 * 1024
"""Of what follows the last event: room for an error."""


class GeminiStreamDecoder(JsonEventDecoder):
    """Canonical chunks from a stream. Calls come whole, as on the wire."""

    __slots__ = ("_candidates", "_last", "_metadata", "_tail", "_tail_size")

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        super().__init__(wall, show_usage=show_usage)
        self._candidates: dict[int, _Candidate] = {}
        self._metadata: dict[str, Any] | None = None
        """The usage as told until now; each event tells all of it."""
        self._last = b""
        """The bytes that ended the last event."""
        self._tail: list[bytes] = []
        """The bytes after them."""
        self._tail_size = 0

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        events = self._sse.feed(data)
        if events:
            # What follows the last event in these bytes is found when it is needed.
            self._last = data
            if self._tail:
                self._tail, self._tail_size = [], 0
        elif self._tail_size < _TAIL_BYTES:
            self._tail.append(data)
            self._tail_size += len(data)
        self._read(events, chunks)
        return chunks

    def finish(self) -> list[Chunk]:
        rest = b"" if self.ended else self._sse.rest().strip()
        # The last empty line may be lost with the connection.
        chunks = self.feed(b"\n\n") if rest.startswith(b"{") and rest.endswith(b"}") else []
        if self._failure is not None:
            raise self._failure
        self.ended = True
        candidates = self._candidates
        if self._head is None or not all(each.last for each in candidates.values()) or not candidates:
            raise self._said_in_tail() or Truncated(
                f"the stream ended {'before its first event' if self._head is None else 'in the middle of its answer'},"
                " without a finishReason"
            )
        filters = [each.last for each in candidates.values() if each.finish == "content_filter" and not each.answered]
        if len(filters) == len(candidates):
            refusal = filtered(filters[0])
            refusal.usage = self._spent()
            raise refusal
        ends: list[dict[str, Any]] = [
            {"index": index, "delta": {}, "finish_reason": each.finish} for index, each in sorted(candidates.items())
        ]
        last = Chunk({**self._head, "choices": ends})
        chunks.append(last)
        if self._metadata is not None:
            usage = tokens_of(self._metadata)
            if self._show_usage:
                chunks.append(Chunk({**self._head, "choices": [], "usage": usage_of(self._metadata)}, usage))
            else:
                last.usage = usage
        return chunks

    def _take(self, response: dict[str, Any] | None, chunks: list[Chunk]) -> None:
        if response is None:
            return
        candidates = response.get("candidates")
        metadata = response.get("usageMetadata")
        if type(metadata) is dict:
            self._metadata = metadata
        else:
            metadata = None
        if not candidates:
            self._take_other(response)
            return
        head = self._head
        if head is None:
            head = self._head = {
                "id": response.get("responseId"),
                "object": "chat.completion.chunk",
                "created": int(self._wall()),
                "model": response.get("modelVersion"),
            }
        response_id = head["id"]
        choices: list[dict[str, Any]] = []
        for candidate in candidates:
            choice = self._choice(candidate, response_id)
            if choice is not None:
                choices.append(choice)
        if choices:
            # With each piece, so that the tokens of a stream that breaks or is left are known.
            usage = None if metadata is None else tokens_of(metadata)
            chunks.append(Chunk({**head, "choices": choices}, usage))

    def _take_other(self, response: dict[str, Any]) -> None:
        """An event without a candidate."""
        if is_error(response):
            self._fail(error_from(response, 200, {}, self._wall()))
            return
        feedback = response.get("promptFeedback")
        if feedback is not None and feedback.get("blockReason"):
            self._fail(blocked(feedback))

    def _choice(self, candidate: dict[str, Any], response_id: Any) -> dict[str, Any] | None:
        """Returns what an event adds to a choice; None: nothing."""
        index = candidate.get("index")
        if index is None:
            index = 0
        state = self._candidates.get(index)
        content = candidate.get("content")
        parts = content.get("parts") if content else None
        delta = answer_of(parts, response_id, state.calls if state else 0) if parts else {}
        if state is None:
            state = self._candidates[index] = _Candidate()
            opened = {"role": "assistant", **delta}
        else:
            opened = delta
        if not state.answered:
            state.answered = not is_empty(delta)
        if "tool_calls" in delta:
            for call in delta["tool_calls"]:
                call["index"] = state.calls
                state.calls += 1
        if candidate.get("finishReason") is not None:  # LiteLLM writes null in each event
            self._note_end(state, candidate)
        if candidate.get("logprobsResult") is not None:
            logprobs = logprobs_of(candidate["logprobsResult"])
            return {"index": index, "delta": opened, "finish_reason": None, "logprobs": logprobs}
        return {"index": index, "delta": opened, "finish_reason": None} if opened else None

    def _note_end(self, state: _Candidate, candidate: dict[str, Any]) -> None:
        failure = failure_of(candidate, not state.answered)
        if failure is not None:
            self._fail(failure)
            return
        state.last = candidate
        state.finish = finish_of(candidate["finishReason"])
        if state.finish == "stop" and state.calls:
            state.finish = "tool_calls"

    def _said_in_tail(self) -> InferenceError | None:
        """The error that is after the last event, if any."""
        tail = b"".join([self._last, *self._tail])
        start = tail.rfind(b"{", 0, max(tail.rfind(b'"error"'), 0))
        end = tail.rfind(b"}")
        if start < 0 or end < 0:
            return None
        try:
            body = _decode(tail[start : end + 1])
        except UNREADABLE:
            return None
        return error_from(body, 200, {}, self._wall()) if is_error(body) else None

    def _spent(self) -> Usage | None:
        return None if self._metadata is None else tokens_of(self._metadata)

    def _fail(self, failure: InferenceError) -> None:
        failure.usage = self._spent()
        super()._fail(failure)


class _Candidate:
    """One answer of the stream."""

    __slots__ = ("answered", "calls", "finish", "last")

    def __init__(self) -> None:
        self.answered = False
        """Something of an answer has come."""
        self.calls = 0
        """Tool calls that have come."""
        self.finish: str | None = None
        self.last: dict[str, Any] = {}
        """The candidate as its last event had it; empty until it told its finish reason."""
