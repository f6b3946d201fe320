"""Streams of typed events on the OpenAI wire: responses, images, speech, transcriptions.

Each event is an object with a `type`, which the chunk's body is. Source: OpenAI's API reference, "Streaming events" of
Responses, "Image generation streaming", "Image edit streaming", "Create speech" and "Create transcription"; for
transcriptions with `choices`, vLLM's speech_to_text/protocol.py.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from engine.core.errors import Malformed, Truncated
from engine.core.stream import Chunk
from engine.core.task_table import TASKS, having
from engine.core.usage import Usage
from engine.dialects.common.error_body import excerpt, is_error
from engine.dialects.common.event_stream import EventDecoder
from engine.dialects.common.json_body import lenient
from engine.dialects.openai.errors import error_from
from engine.dialects.openai.responses import failure_of, is_withheld
from engine.dialects.openai.stream import DONE, KEEP_ALIVE
from engine.dialects.openai.usage import read_usage

_MANY = having("gives_images")
"""With `n` images there are as many last events."""
_BEFORE = ("response.created", "response.queued", "response.in_progress")
"""Said before anything of the answer is there."""


class EventStreamDecoder(EventDecoder):
    """Chunks from a stream of typed events.

    Strict: a stream that ends without the event that ends its answer is truncated. What is said before the answer
    begins is kept until it does: so the first chunk is the first of the answer, and a failure before it can be tried
    again. A last event's usage comes with its chunk.
    """

    __slots__ = (
        "_answered",
        "_before",
        "_ends",
        "_finished",
        "_task",
        "_text",
        "_transcript",
        "_usage",
        "_wall",
    )

    def __init__(self, task: str, wall: Callable[[], float] = time.time) -> None:
        self._task = task
        self._wall = wall
        self._ends = TASKS[task].ends
        super().__init__()
        self._before: list[Chunk] = []
        self._transcript: list[str] | None = None
        """Pieces of a transcript that comes in vLLM's form."""
        self._usage: Usage | None = None
        """Of such a transcript."""
        self._answered = False
        """An event of an answer has come."""
        self._text = False
        """And something that a caller can read."""
        self._finished = False
        """An event that ends an answer has come."""

    def finish(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        rest = b"" if self.ended else self._sse.rest().strip()
        if rest.endswith(b"}") or rest == DONE:  # only the last empty line is lost
            chunks += self.feed(b"\n\n")
        if self._failure is not None:
            raise self._failure
        if not self._finished:
            after = "after its first chunks" if self._answered else "before its first chunk"
            raise Truncated(f"the stream ended {after}, without {' or '.join(self._ends)}")
        self.ended = True
        return chunks

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        if payload.strip() == DONE:
            self._end_choices(chunks)
            self.ended = True
            return
        body = lenient(payload)
        if name in KEEP_ALIVE or (type(body) is dict and body.get("type") == "ping"):
            return
        if type(body) is not dict or name == b"error" or body.get("type") == "error" or is_error(body):
            self._refuse(name, body, payload)
            return
        kind = body.get("type")
        if kind is None and name:
            kind = name.decode("utf-8", "replace")
            body = {"type": kind, **body}
        if type(kind) is str:
            self._take(kind, body, payload, chunks)
        elif type(body.get("choices")) is list and TASKS[self._task].files == ("file",):
            self._choice(body, chunks)
        else:
            self._refuse(b"", body, payload)

    def _take(self, kind: str, body: dict[str, Any], payload: bytes, chunks: list[Chunk]) -> None:
        if kind in _BEFORE:
            if not self._answered:
                self._before.append(Chunk(body))
                return
        elif kind == "response.failed":
            self._fail(failure_of(body.get("response"), payload, self._wall()))
            return
        usage = None
        if kind in self._ends:
            response = body.get("response") if self._task == "response" else body
            if type(response) is not dict:
                self._fail(Malformed(f"the stream's last event has no response: {excerpt(payload)}"))
                return
            if self._task == "response" and not self._text and is_withheld(response):
                self._fail(failure_of(response, payload, self._wall()))
                return
            usage = response.get("usage")
            self._finished = True
            self.ended = self._task not in _MANY
        if self._before:
            chunks += self._before
            self._before = []
        self._answered = True
        self._text = self._text or kind.endswith(".delta")
        chunks.append(Chunk(body, read_usage(usage) if type(usage) is dict else None))

    def _choice(self, body: dict[str, Any], chunks: list[Chunk]) -> None:
        """A piece of a transcript as vLLM sends it, in OpenAI's form."""
        if self._transcript is None:
            self._transcript = []
        for choice in body["choices"]:
            delta = choice.get("delta") if type(choice) is dict else None
            text = delta.get("content") if type(delta) is dict else None
            if type(text) is str and text:
                self._transcript.append(text)
                self._answered = True
                chunks.append(Chunk({"type": "transcript.text.delta", "delta": text}))
        usage = body.get("usage")
        if type(usage) is dict:
            self._usage = read_usage(usage)

    def _end_choices(self, chunks: list[Chunk]) -> None:
        if self._transcript is None or self._finished:
            return
        self._finished = True
        chunks.append(Chunk({"type": "transcript.text.done", "text": "".join(self._transcript)}, self._usage))

    def _refuse(self, name: bytes, body: Any, payload: bytes) -> None:
        if name == b"error" or is_error(body) or (type(body) is dict and body.get("type") == "error"):
            self._fail(error_from(body if body is not None else excerpt(payload), 200, {}, self._wall()))
        else:
            self._fail(Malformed(f"the stream has an event that is not documented: {excerpt(payload)}"))


class SpeechStreamDecoder:
    """Chunks from a stream of speech, which is one of events or the audio itself: the first bytes tell.

    Audio has no end of its own. A reply that is cut is noticed by the transport, which knows where its body ends.
    """

    __slots__ = ("_events", "_first", "_sound", "_wall", "ended")

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._events: EventStreamDecoder | None = None
        self._first = b""
        self._sound = False
        self.ended = False

    def feed(self, data: bytes) -> list[Chunk]:
        if self._events is None and not self._sound:
            data = self._first + data
            self._first = b""
            if data.lstrip().startswith((b"data:", b"event:", b": ", b":\n")):
                self._events = EventStreamDecoder("speech", self._wall)
            elif len(data) < len(b"event:"):
                self._first = data
                return []
            else:
                self._sound = True
        if self._events is None:
            return [_sound(data)] if data else []
        chunks = self._events.feed(data)
        self.ended = self._events.ended
        return chunks

    def finish(self) -> list[Chunk]:
        self.ended = True
        if self._events is not None:
            return self._events.finish()
        if not self._sound and not self._first:
            raise Truncated("the stream ended before its first chunk")
        rest = [_sound(self._first)] if self._first else []
        return [*rest, Chunk({"type": "speech.audio.done"})]


def _sound(data: bytes) -> Chunk:
    return Chunk({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode("ascii")})
