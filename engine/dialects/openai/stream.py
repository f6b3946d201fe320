"""Streams of choices on the OpenAI wire: chats and completions.

Source: OpenAI's API reference, "Streaming"; how servers end one: OpenAI, vLLM and llama.cpp send `data: [DONE]`,
`transformers serve` and Perplexity end the body after the last finish reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import msgspec

from engine.core.errors import Malformed, Truncated
from engine.core.stream import Chunk
from engine.dialects.common.boundary import DEFECTS
from engine.dialects.common.error_body import excerpt, is_error
from engine.dialects.common.event_stream import EventDecoder
from engine.dialects.common.json_body import lenient
from engine.dialects.openai.errors import FINISH_FAILURES, error_from
from engine.dialects.openai.reply import finish_failure, is_empty, withheld
from engine.dialects.openai.usage import read_usage
from engine.schemas.provider import StreamEnd

DONE = b"[DONE]"
_decode = msgspec.json.Decoder().decode
KEEP_ALIVE = (b"ping", b"keepalive", b"keep-alive", b"heartbeat")
"""Names of events that hold nothing."""


class OpenAIStreamDecoder(EventDecoder):
    """Chunks from a stream of server-sent events.

    A stream is complete when each choice has its finish reason and `data: [DONE]` or the end of the body follows; `end`
    may set another rule. Events without choices are skipped unless they have the usage. null, an empty object and an
    empty list are the same as an absent field.
    """

    skips_empty = False
    __slots__ = (
        "_answered",
        "_begun",
        "_done",
        "_end",
        "_filtered",
        "_held",
        "_kind",
        "_part",
        "_show_usage",
        "_skipped",
        "_unfinished",
        "_wall",
    )

    def __init__(
        self,
        task: str,
        wall: Callable[[], float] = time.time,
        *,
        show_usage: bool = True,
        end: StreamEnd = "finish",
    ) -> None:
        super().__init__()
        self._show_usage = show_usage
        self._end = end
        self._held: Chunk | None = None
        """The chunk that ends the answer, until it is known whether a chunk with the usage follows."""
        self._part = "delta" if task == "chat" else "text"
        """The field of a choice with a piece of its answer."""
        self._kind: type = dict if task == "chat" else str
        """The type of that field."""
        self._wall = wall
        self._begun: set[int] = set()
        """Indexes of the choices that have come."""
        self._unfinished: set[int] = set()
        """Indexes of those that have no finish reason yet."""
        self._skipped = b""
        """The first event that was skipped."""
        self._answered = False
        """Something of an answer has come."""
        self._filtered = False
        self._done = False
        """The terminator has come."""

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        try:
            body = _decode(payload)
            choices = body["choices"]
            if name == b"error" or type(choices) is not list or "error" in body:
                choices = self._odd(name, body, payload)
        except DEFECTS:
            if payload.strip() == DONE:
                self._done = self.ended = True
                return
            body = lenient(payload) if payload else {}
            choices = self._odd(name, body, payload)
        if choices is not None and self._take_choices(choices, payload):
            usage = body.get("usage")
            if usage is None and "x_groq" in body:
                usage = body["x_groq"].get("usage") if type(body["x_groq"]) is dict else None
            chunk = Chunk(body, read_usage(usage) if type(usage) is dict else None)
            if self._show_usage:
                chunks.append(chunk)
            else:
                self._pass(chunk, choices, chunks)

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        rest = b"" if self.ended else self._sse.rest().strip()
        # The last empty line may be lost with the connection. An event that is not whole was cut.
        cut = bool(rest) and rest != DONE and lenient(rest) is None
        if rest and not cut:
            chunks += self.feed(b"\n\n")
        if self._failure is not None:
            raise self._failure
        self._check_end(cut)
        self.ended = True
        if not self._begun:
            skipped = f"; it began with: {excerpt(self._skipped)}" if self._skipped else ""
            raise Malformed(f"the stream ended without any choice{skipped}")
        if self._filtered and not self._answered:
            raise withheld()
        kept, self._held = self._held, None
        return [*chunks, kept] if kept is not None else chunks

    def _check_end(self, cut: bool) -> None:
        """Raises Truncated unless the stream came to its end."""
        begun = self._begun
        missing = []
        if self._end != "done" and self._unfinished and not cut:
            missing.append("a finish_reason")
        if not self._done and (self._end != "finish" or not begun or cut):
            missing.append("its [DONE]")
        if missing:
            after = "after its first chunks" if begun else "before its first chunk"
            step = "; if this server never sends one, set provider.stream_end=done" if self._done else ""
            raise Truncated(f"the stream ended {after}, without {' and '.join(missing)}{step}")

    def _odd(self, name: bytes, body: Any, payload: bytes) -> list[Any] | None:
        """The choices of an event that is not plainly a chunk: empty if it has the usage alone; None if it has nothing,
        or is a failure, which `finish` raises."""
        choices = body.get("choices") if type(body) is dict else None
        if name in KEEP_ALIVE or (body is None and payload.strip() == b"null"):
            self._skipped = self._skipped or payload
        elif name == b"error" or type(body) is not dict or is_error(body) or (choices and type(choices) is not list):
            self._refuse(name, body, payload)
        elif choices:
            return cast(list[Any], choices)
        elif type(body.get("usage")) is dict or body.get("x_groq"):
            body["choices"] = []
            return []
        else:
            self._skipped = self._skipped or payload
        return None

    def _pass(self, chunk: Chunk, choices: list[Any], chunks: list[Chunk]) -> None:
        """Passes a chunk on, but not one that holds nothing but the usage."""
        held = self._held
        if not choices and held is not None:
            held.usage = chunk.usage or held.usage
            return
        if held is not None:
            chunks.append(held)
            self._held = None
        if choices and any(choice.get("finish_reason") for choice in choices):
            self._held = chunk
        else:
            chunks.append(chunk)

    def _take_choices(self, choices: list[Any], payload: bytes) -> bool:
        """Notes what a chunk's choices say, and gives them the types of the canonical form. False: they are a failure,
        which is kept for `finish`."""
        part, kind, begun = self._part, self._kind, self._begun
        for place, choice in enumerate(choices):
            if type(choice) is not dict:
                self._fail(Malformed(f"the stream has a choice that is not an object: {excerpt(payload)}"))
                return False
            index = choice.get("index")
            if type(index) is not int:
                index = choice["index"] = place
            if index not in begun:
                begun.add(index)
                self._unfinished.add(index)
            reason = choice.get("finish_reason")
            if reason is not None and not self._end_choice(index, choice, reason):
                return False
            answer = choice.get(part)
            if type(answer) is not kind:
                if answer:
                    self._fail(Malformed(f"the stream has a choice with a {part} of another type: {excerpt(payload)}"))
                    return False
                choice[part] = kind()
            elif answer and not self._answered:
                self._answered = not is_empty(answer)
        return True

    def _end_choice(self, index: int, choice: dict[str, Any], reason: Any) -> bool:
        """Notes a finish reason. False: it is a failure."""
        if type(reason) is not str or not reason:
            choice["finish_reason"] = None  # {} or "" of a server that has no reason yet; no other type is one
            return True
        if reason in FINISH_FAILURES:
            self._fail(finish_failure(choice, self._wall()))
            return False
        self._filtered = self._filtered or reason == "content_filter"
        self._unfinished.discard(index)
        return True

    def _refuse(self, name: bytes, body: Any, payload: bytes) -> None:
        if name == b"error" or is_error(body):
            what = body if body is not None else excerpt(payload)
            self._fail(error_from(what, 200, {}, self._wall()))
        else:
            self._fail(Malformed(f"the stream has an event that is not a chunk: {excerpt(payload)}"))
