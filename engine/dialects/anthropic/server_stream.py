"""Canonical chunks → Anthropic's stream of events.

Source: Anthropic's guide "Streaming messages".
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InferenceError, Overloaded
from engine.core.stream import Chunk
from engine.dialects.anthropic.server_errors import wire_error
from engine.dialects.anthropic.server_reply import message_head, stop_of, wire_usage
from engine.dialects.common.boundary import writes

_encode = msgspec.json.Encoder().encode


class AnthropicStreamEncoder:
    """The events of one message. Blocks follow one another: a new one closes the one before it."""

    __slots__ = ("_blocks", "_broken", "_calls", "_choice", "_kind", "_model", "_open", "_started", "_usage")

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._started = False
        self._broken = False
        self._blocks = 0
        """Blocks that were begun."""
        self._open: int | None = None
        """The index of the block that is open."""
        self._kind: Any = None
        """The open block: text, thinking, or the index of a tool call."""
        self._calls: dict[int, int] = {}
        """The block of each tool call."""
        self._choice: dict[str, Any] = {}
        """The choice that ended the answer."""
        self._usage: dict[str, Any] = {}

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        if self._broken:
            return b""
        if chunk.restarted and self._blocks:
            return self.failed(Overloaded("the answer broke and began anew elsewhere; send the request again"))
        body = chunk.body
        out: list[bytes] = []
        if body.get("usage"):
            self._usage = body["usage"]
        elif chunk.usage is not None:
            usage = chunk.usage
            self._usage = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
                "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            }
        if not self._started:
            self._start(body, out)
        for choice in body.get("choices") or ():
            if not choice.get("index"):
                self._delta(choice.get("delta") or {}, out)
                if choice.get("finish_reason"):
                    self._choice = choice
        return b"".join(out)

    @writes
    def end(self) -> bytes:
        if self._broken:
            return b""
        out: list[bytes] = []
        if not self._started:
            self._start({}, out)
        self._close(out)
        delta = {"type": "message_delta", "delta": stop_of(self._choice), "usage": wire_usage(self._usage)}
        out += (_event("message_delta", delta), _event("message_stop", {"type": "message_stop"}))
        return b"".join(out)

    def failed(self, error: InferenceError) -> bytes:
        self._broken = True
        return _event("error", wire_error(error)[1])

    def _start(self, body: dict[str, Any], out: list[bytes]) -> None:
        self._started = True
        message = {
            **message_head(body, self._model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": wire_usage(self._usage),
        }
        out.append(_event("message_start", {"type": "message_start", "message": message}))

    def _delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
            self._say({"type": "thinking_delta", "thinking": thought}, out)
        for block in delta.get("thinking_blocks") or ():
            self._thought(block, out)
        text = delta.get("content") or delta.get("refusal")
        if text:
            self._switch("text", {"type": "text", "text": ""}, out)
            self._say({"type": "text_delta", "text": text}, out)
        for call in delta.get("tool_calls") or ():
            self._call(call, out)

    def _thought(self, block: dict[str, Any], out: list[bytes]) -> None:
        """A thought as a whole: it closes the one that came in pieces, with its signature."""
        if block.get("type") != "thinking":
            self._switch(None, block, out)
        else:
            if self._kind != "thinking":
                self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
            self._say({"type": "signature_delta", "signature": block.get("signature") or ""}, out)
        self._close(out)

    def _call(self, call: dict[str, Any], out: list[bytes]) -> None:
        index, function = call.get("index") or 0, call.get("function") or {}
        if index not in self._calls:
            start: dict[str, Any] = {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": {},
            }
            self._switch(index, start, out)
            self._calls[index] = self._blocks - 1
        if function.get("arguments"):
            piece = {"type": "input_json_delta", "partial_json": function["arguments"]}
            out.append(_delta_event(self._calls[index], piece))

    def _switch(self, kind: Any, start: dict[str, Any], out: list[bytes]) -> None:
        """Opens a block unless one of its kind is open; None: always."""
        if self._open is not None and kind is not None and self._kind == kind:
            return
        self._close(out)
        event = {"type": "content_block_start", "index": self._blocks, "content_block": start}
        out.append(_event("content_block_start", event))
        self._open, self._kind = self._blocks, kind
        self._blocks += 1

    def _say(self, delta: dict[str, Any], out: list[bytes]) -> None:
        assert self._open is not None
        out.append(_delta_event(self._open, delta))

    def _close(self, out: list[bytes]) -> None:
        if self._open is not None:
            out.append(_event("content_block_stop", {"type": "content_block_stop", "index": self._open}))
            self._open = self._kind = None


def _delta_event(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(data))
