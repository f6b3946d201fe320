"""Ollama's streams: one JSON object a line, the last with `done: true`. Source: its docs, "Streaming" and "Errors"."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from engine.core.errors import Malformed
from engine.core.stream import Chunk
from engine.dialects.codecs.ndjson import MAX_LINE_BYTES, NdjsonDecoder
from engine.dialects.common.error_body import excerpt
from engine.dialects.common.json_body import lenient, usage_body
from engine.dialects.common.json_stream import JsonStreamDecoder
from engine.dialects.ollama import reply
from engine.dialects.ollama.errors import stream_error


class OllamaStreamDecoder(JsonStreamDecoder):
    """Canonical chunks from lines; `done: true` ends them, and a stream that ends without it is truncated."""

    __slots__ = ("_calls", "_chat", "_lines", "_offset", "_show_usage", "_wall")

    kind = "a line"
    last = "a line that says done"
    limit_bytes = MAX_LINE_BYTES

    def __init__(self, task: str, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        super().__init__()
        self._lines = NdjsonDecoder()
        self._chat = task == "chat"
        self._wall = wall
        self._show_usage = show_usage
        self._calls = 0
        """Tool calls so far."""
        self._offset = 0
        """Characters of a completion so far."""

    def _pieces(self, data: bytes) -> list[bytes]:
        return self._lines.feed(data)

    def _rest(self) -> bytes:
        return self._lines.rest()

    def _oversized(self) -> bool:
        return self._lines.oversized

    def _ends(self, body: dict[str, Any]) -> bool:
        return body.get("done") is True

    def _take(self, line: bytes, chunks: list[Chunk]) -> None:
        body = lenient(line)
        if type(body) is dict and body.get("error"):
            self._fail(stream_error(body, self._wall()))
            return
        try:
            choice = self._choice(body) if type(body) is dict else None
        except (KeyError, TypeError, AttributeError):
            choice = None
        if choice is None:
            self._fail(Malformed(f"the stream has a line that is not a chunk: {excerpt(line)}"))
            return
        done = body.get("done") is True
        if done:
            reason = reply.finish_reason(body)
            if reason in ("load", "unload"):
                self._fail(Malformed(f"the server has only done this with the model: {reason}"))
                return
            choice["finish_reason"] = "tool_calls" if reason == "stop" and self._calls else reason
        first = self._base is None
        if self._base is None:
            self._base = self._made(body)
        if first and self._chat:
            choice["delta"] = {"role": "assistant", **choice["delta"]}
        if done or first or "logprobs" in choice or (choice["delta"] if self._chat else choice["text"]):
            chunks.append(Chunk({**self._base, "choices": [choice]}))
        if done:
            self._end(body, chunks)

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        """The choice of one line. Raises KeyError, TypeError or AttributeError for a line that is not a chunk."""
        if not self._chat:
            if "response" not in body:
                raise KeyError("response")
            text = reply.text_of(body, "response") or ""
            choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": None}
            thinking = reply.text_of(body, "thinking")
            if thinking:
                choice["reasoning_content"] = thinking
            if body.get("logprobs"):
                choice["logprobs"] = reply.legacy_logprobs(body["logprobs"], self._offset)
            self._offset += len(text)
            return choice
        delta: dict[str, Any] = {}
        # The last line of some servers has no message.
        message = body["message"] if body.get("done") is not True else body.get("message") or {}
        content = reply.text_of(message, "content")
        if content:
            delta["content"] = content
        thinking = reply.text_of(message, "thinking")
        if thinking:
            delta["reasoning_content"] = thinking
        if message.get("tool_calls"):
            calls = reply.tool_calls(message["tool_calls"], self._calls)
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls, self._calls)]
            self._calls += len(calls)
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        if body.get("logprobs"):
            choice["logprobs"] = reply.logprobs(body["logprobs"])
        return choice

    def _made(self, body: dict[str, Any]) -> dict[str, Any]:
        task = "chat" if self._chat else "completion"
        return {
            "id": reply.reply_id(task, body, self._wall),
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": reply.created_s(body, self._wall),
            "model": body.get("model") or "",
        }

    def _end(self, body: dict[str, Any], chunks: list[Chunk]) -> None:
        self.ended = True
        usage = reply.read_usage(body)
        if usage is None:
            return
        if self._show_usage:
            shown = {**(self._base or {}), "choices": [], "usage": usage_body(usage)}
            chunks.append(Chunk(shown, usage))
        else:
            chunks[-1].usage = usage
