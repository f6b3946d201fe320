"""Streams of choices on the OpenAI wire: chats and completions.

Source: OpenAI's API reference, "Streaming"; how servers end one: OpenAI, vLLM and llama.cpp send `data: [DONE]`,
`transformers serve` and Perplexity end the body after the last finish reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.errors import InferenceError, Malformed, Truncated
from engine.core.stream import Chunk
from engine.dialects.codecs.sse import MAX_EVENT_BYTES, SseDecoder
from engine.dialects.common.error_body import excerpt, is_error
from engine.dialects.common.json_body import lenient
from engine.dialects.openai.errors import FINISH_FAILURES, error_from
from engine.dialects.openai.reply import finish_failure, is_empty, withheld
from engine.dialects.openai.usage import read_usage
from engine.schemas.provider import StreamEnd

DONE = b"[DONE]"
_decode = msgspec.json.Decoder().decode
_KEEP_ALIVE = (b"ping", b"keepalive", b"keep-alive", b"heartbeat")
"""Names of events that hold nothing."""


class OpenAIStreamDecoder:
    """Chunks from a stream of server-sent events.

    A stream is complete when each choice has its finish reason and `data: [DONE]` or the end of the body follows; `end`
    may set another rule. Events without choices are skipped unless they have the usage. null, an empty object and an
    empty list are the same as an absent field.
    """

    __slots__ = (
        "_answered",
        "_done",
        "_end",
        "_failure",
        "_filtered",
        "_finished",
        "_held",
        "_show_usage",
        "_skipped",
        "_sse",
        "_task",
        "_unfinished",
        "_wall",
        "ended",
    )

    def __init__(
        self,
        task: str,
        wall: Callable[[], float] = time.time,
        *,
        show_usage: bool = True,
        end: StreamEnd = "finish",
    ) -> None:
        self._sse = SseDecoder()
        self._show_usage = show_usage
        self._end = end
        self._held: Chunk | None = None
        """The chunk that ends the answer, until it is known whether a chunk with the usage follows."""
        self._task = task
        self._wall = wall
        self._failure: InferenceError | None = None
        self._unfinished: set[int] = set()
        """Indexes of the choices that have begun."""
        self._finished: set[int] = set()
        """Indexes of the choices that have their finish reason."""
        self._skipped = b""
        """The first event that was skipped."""
        self._answered = False
        """Something of an answer has come."""
        self._filtered = False
        self._done = False
        """The terminator has come."""
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.ended:
            return chunks
        for name, payload in self._sse.feed(data):
            self._take(name, payload, chunks)
            if self.ended:
                return chunks
        if self._sse.oversized:
            self._fail(Malformed(f"the stream has an event of more than {MAX_EVENT_BYTES} bytes"))
        return chunks

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        rest = b"" if self.ended else self._sse.rest().strip()
        # The last empty line may be lost with the connection. What is no whole event was cut.
        cut = bool(rest) and rest != DONE and lenient(rest) is None
        if rest and not cut:
            self._take(b"", rest, chunks)
        if self._failure is not None:
            raise self._failure
        self._check_end(cut)
        self.ended = True
        if not self._unfinished and not self._finished:
            skipped = f"; it began with: {excerpt(self._skipped)}" if self._skipped else ""
            raise Malformed(f"the stream ended without any choice{skipped}")
        if self._filtered and not self._answered:
            raise withheld()
        kept, self._held = self._held, None
        return [*chunks, kept] if kept is not None else chunks

    def _check_end(self, cut: bool) -> None:
        """Raises Truncated unless the stream came to its end."""
        begun = self._unfinished or self._finished
        missing = []
        if self._end != "done" and self._unfinished and not cut:
            missing.append("a finish_reason")
        if not self._done and (self._end != "finish" or not begun or cut):
            missing.append("its [DONE]")
        if missing:
            after = "after its first chunks" if begun else "before its first chunk"
            step = "; if this server never sends one, set provider.stream_end=done" if self._done else ""
            raise Truncated(f"the stream ended {after}, without {' and '.join(missing)}{step}")

    def _take(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        """Adds the chunk of an event, and notes an end or a failure."""
        if payload == DONE:
            self._done = self.ended = True
            return
        try:
            body = _decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            text = payload.strip()
            if text == DONE:
                self._done = self.ended = True
                return
            body = lenient(text) if text else {}
            if body is None and name not in _KEEP_ALIVE:
                self._refuse(name, None, payload)
                return
        choices = body.get("choices") if type(body) is dict else None
        if name == b"error" or type(choices) is not list or body.get("error"):
            if not self._is_chunk(name, body):
                self._refuse(name, body, payload)
                return
            if type(body) is not dict or (type(body.get("usage")) is not dict and not body.get("x_groq")):
                self._skipped = self._skipped or payload
                return
            choices = body["choices"] = []
        if choices and not self._take_choices(choices, payload):
            return
        usage = body.get("usage")
        if usage is None and "x_groq" in body:
            usage = body["x_groq"].get("usage") if type(body["x_groq"]) is dict else None
        chunk = Chunk(body, read_usage(usage) if type(usage) is dict else None)
        if self._show_usage:
            chunks.append(chunk)
        else:
            self._pass(chunk, choices, chunks)

    def _is_chunk(self, name: bytes, body: Any) -> bool:
        """Returns true for an event without choices that is neither an error nor something else than a chunk."""
        if name == b"error":
            return False
        if body is None or name in _KEEP_ALIVE:
            return True
        return type(body) is dict and not body.get("choices") and not is_error(body)

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
        part = "delta" if self._task == "chat" else "text"
        for place, choice in enumerate(choices):
            if type(choice) is not dict:
                self._fail(Malformed(f"the stream has a choice that is not an object: {excerpt(payload)}"))
                return False
            index = choice.get("index")
            if type(index) is not int:
                index = choice["index"] = place
            reason = choice.get("finish_reason")
            if reason is None:
                if index not in self._finished:
                    self._unfinished.add(index)
            elif not self._end_choice(index, choice, reason):
                return False
            answer = choice.get(part)
            if type(answer) is not (dict if part == "delta" else str):
                if answer:
                    self._fail(Malformed(f"the stream has a choice with a {part} of another type: {excerpt(payload)}"))
                    return False
                choice[part] = {} if part == "delta" else ""
            elif answer and not self._answered:
                self._answered = not is_empty(answer)
        return True

    def _end_choice(self, index: int, choice: dict[str, Any], reason: Any) -> bool:
        """Notes a finish reason. False: it is a failure."""
        if type(reason) is not str or not reason:
            choice["finish_reason"] = None  # {} or "" of a server that has no reason yet; no other type is one
            if index not in self._finished:
                self._unfinished.add(index)
            return True
        if reason in FINISH_FAILURES:
            self._fail(finish_failure(choice, self._wall()))
            return False
        self._filtered = self._filtered or reason == "content_filter"
        self._unfinished.discard(index)
        self._finished.add(index)
        return True

    def _refuse(self, name: bytes, body: Any, payload: bytes) -> None:
        if name == b"error" or is_error(body):
            what = body if body is not None else excerpt(payload)
            self._fail(error_from(what, 200, {}, self._wall()))
        else:
            self._fail(Malformed(f"the stream has an event that is not a chunk: {excerpt(payload)}"))

    def _fail(self, failure: InferenceError) -> None:
        self._failure = failure
        self.ended = True
