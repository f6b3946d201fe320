"""Anthropic's stream of events → canonical chunks.

Its order: `message_start`; for each content block `content_block_start`, deltas, `content_block_stop`; `message_delta`
with the stop reason and the usage; `message_stop`. `ping` and events that are not known yet may come anywhere.
Source: Anthropic's guide "Streaming messages", and "Versioning" for what may be added.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.errors import Malformed, Truncated
from engine.core.stream import Chunk
from engine.dialects.anthropic.errors import error_from
from engine.dialects.anthropic.reply import FINISH_REASONS, finish_of, read_usage, refused
from engine.dialects.common.event_stream import JsonEventDecoder

_encode = msgspec.json.Encoder().encode


class AnthropicStreamDecoder(JsonEventDecoder):
    """Canonical chunks from a stream that `message_stop` ends; without it, the stream is truncated."""

    __slots__ = ("_answered", "_blocks", "_calls", "_stop", "_usage")

    def __init__(self, wall: Callable[[], float] = time.time, *, show_usage: bool = True) -> None:
        super().__init__(wall, show_usage=show_usage)
        self._blocks: dict[int, _Block] = {}
        """The content blocks that are open."""
        self._calls = 0
        self._answered = False
        """A content block has come."""
        self._stop: dict[str, Any] = {}
        """Stop reason and what belongs to it."""
        self._usage: dict[str, Any] = {}
        """As told until now; every count is a total."""

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if not self.ended and self._failure is None:
            # The last empty line may be lost with the connection; the terminator itself is unmistakable.
            rest = self._sse.rest().strip()
            if rest.startswith(b"{") and rest.endswith(b"}") and b'"message_stop"' in rest:
                self._end(chunks)
        if self._failure is not None:
            raise self._failure
        if not self.ended:
            when = "before its first event" if self._head is None else "in the middle of its message"
            raise Truncated(f"the stream ended {when}, without its message_stop")
        return chunks

    def _take(self, event: dict[str, Any], chunks: list[Chunk]) -> None:
        kind = event["type"]
        if kind == "content_block_delta":
            delta = event["delta"]
            text = delta.get("text")
            if type(text) is str:
                if text:
                    chunks.append(self._chunk({"content": text}))
            else:
                self._take_delta(self._blocks[event["index"]], delta, chunks)
        elif kind == "content_block_start":
            self._start_block(event["index"], event["content_block"], chunks)
        elif kind == "content_block_stop":
            self._stop_block(self._blocks.pop(event["index"], None), chunks)
        elif kind == "message_start":
            message = event["message"]
            self._usage.update(message.get("usage") or {})
            self._head = {
                "id": message.get("id"),
                "object": "chat.completion.chunk",
                "created": int(self._wall()),
                "model": message.get("model"),
            }
            first = self._chunk({"role": "assistant", "content": ""})
            if self._usage:
                # The prompt's tokens are known from here on, also when the stream is cut or left.
                first.usage = read_usage(self._usage)[1]
                first.usage.estimated = True
            chunks.append(first)
        elif kind == "message_delta":
            self._stop.update(event["delta"])
            self._usage.update({name: count for name, count in (event.get("usage") or {}).items() if count is not None})
        elif kind == "message_stop":
            self._end(chunks)
        elif kind == "error" or event.get("error"):
            self._fail(error_from(event, self._wall()))

    def _start_block(self, index: int, said: dict[str, Any], chunks: list[Chunk]) -> None:
        kind = said["type"]
        self._answered = True
        block = self._blocks[index] = _Block(kind)
        if kind == "tool_use":
            block.call = self._calls
            self._calls += 1
            block.input = said.get("input")
            if type(said["name"]) is not str or type(said["id"]) is not str:
                raise TypeError("a tool_use without name or id")
            function = {"name": said["name"], "arguments": ""}
            call = {"index": block.call, "id": said["id"], "type": "function", "function": function}
            chunks.append(self._chunk({"tool_calls": [call]}))
        elif kind == "text":
            if said.get("text"):
                chunks.append(self._chunk({"content": said["text"]}))
        elif kind == "thinking":
            self._think(block, said.get("thinking") or "", chunks)
            block.signature = said.get("signature") or ""
        elif kind == "redacted_thinking":
            chunks.append(self._chunk({"thinking_blocks": [said]}))

    def _take_delta(self, block: _Block, delta: dict[str, Any], chunks: list[Chunk]) -> None:
        kind = delta["type"]
        if kind == "input_json_delta":
            piece = delta["partial_json"]
            if type(piece) is not str:
                raise TypeError("partial_json is not a text")
            if piece and block.kind == "tool_use":
                block.said = True
                chunks.append(self._arguments(block, piece))
        elif kind == "thinking_delta":
            self._think(block, delta["thinking"], chunks)
        elif kind == "signature_delta":
            block.signature += delta["signature"]

    def _stop_block(self, block: _Block | None, chunks: list[Chunk]) -> None:
        if block is None:
            return
        if block.kind == "tool_use" and not block.said:
            # A call without arguments has no deltas; JSON it is all the same.
            chunks.append(self._arguments(block, _encode(block.input or {}).decode()))
        elif block.kind == "thinking":
            thought = {"type": "thinking", "thinking": "".join(block.thoughts), "signature": block.signature}
            chunks.append(self._chunk({"thinking_blocks": [thought]}))

    def _think(self, block: _Block, text: str, chunks: list[Chunk]) -> None:
        if type(text) is not str:
            raise TypeError("a thought is not a text")
        if text:
            block.thoughts.append(text)
            chunks.append(self._chunk({"reasoning_content": text}))

    def _arguments(self, block: _Block, piece: str) -> Chunk:
        return self._chunk({"tool_calls": [{"index": block.call, "function": {"arguments": piece}}]})

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> Chunk:
        head = self._head
        if head is None:
            raise LookupError("no message_start")
        return Chunk({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _end(self, chunks: list[Chunk]) -> None:
        """The end of the answer, told only now: what a cut stream leaves must not look finished."""
        reason = self._stop.get("stop_reason")
        if reason == "refusal":
            refusal = refused(self._stop.get("stop_details"))
            refusal.usage = read_usage(self._usage)[1]
            self._fail(refusal)
            return
        finish = finish_of(reason) if self._answered else FINISH_REASONS.get(reason) if type(reason) is str else None
        if finish is None or self._head is None:
            self._fail(Malformed(f"the stream ended with stop_reason {reason!r}"))
            return
        self.ended = True
        said, usage = read_usage(self._usage)
        last = self._chunk({}, finish)
        if reason == "stop_sequence":
            last.body["choices"][0]["stop_reason"] = self._stop.get("stop_sequence")
        chunks.append(last)
        if self._show_usage:
            chunks.append(Chunk({**self._head, "choices": [], "usage": said}, usage))
        else:
            last.usage = usage


class _Block:
    """A content block that is open."""

    __slots__ = ("call", "input", "kind", "said", "signature", "thoughts")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.call = 0
        """The index of a tool call."""
        self.input: Any = None
        """A call's arguments, where its start says them already."""
        self.said = False
        """Some of the arguments have come."""
        self.thoughts: list[str] = []
        self.signature = ""
