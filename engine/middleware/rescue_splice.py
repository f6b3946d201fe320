"""Joins the rest of an answer to its beginning, so that no text comes twice."""

from __future__ import annotations

from collections import deque
from typing import Any

from engine.core.stream import Chunk

MIN_OVERLAP_CHARS = 8
"""Shorter repetitions may be equal by chance, and are kept."""
TAIL_CHARS = 400
"""The furthest point back where a repetition may begin, except at the very start."""
_OTHER_PARTS = ("tool_calls", "function_call", "refusal", "reasoning_content", "reasoning", "audio", "images")


class Splice:
    """The delivered text of a stream, and the part of another stream that belongs behind it."""

    def __init__(self) -> None:
        self.chunks = 0
        """Chunks delivered."""
        self.finished = False
        """True once a finish reason was delivered, and nothing after it."""
        self._parts: list[str] = []
        self.plain = True
        """True while only one choice's text was delivered: only that can be continued, or compared."""
        self._id: Any = None
        self._joining: str | None = None
        """The target that continues, until the place of its text is known."""
        self._continued = False
        self._joined = False
        """True: the chunks from now on are another stream's."""
        self._mark: dict[str, Any] | None = None
        """The mark for the next chunk."""
        self._seen = ""
        """Text of the joining stream."""
        self._held: list[Chunk] = []
        self._ready: deque[Chunk] = deque()

    @property
    def text(self) -> str:
        """Returns the delivered text."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def passes(self, chunk: Chunk) -> bool:
        """True: the chunk passes unchanged. False: it is held, and `take` may return one."""
        if self._joining is None and not self._joined:
            self._note(chunk)
            return True
        if self._joining is None:
            self._emit(chunk)
            return False
        self._held.append(chunk)
        text, plain = _read(chunk.body)
        self._seen += text
        if not plain or _finished(chunk.body):
            self.end()
        elif self._seen:
            self._decide(last=False)
        return False

    def take(self) -> Chunk | None:
        """Returns the next held chunk that may pass now."""
        return self._ready.popleft() if self._ready else None

    def join(self, target: str, *, continued: bool) -> None:
        """Notes that another stream follows. `continued`: it got the delivered text, and continues from there."""
        self._joining, self._continued = target, continued
        self._seen, self._held = "", []

    def end(self) -> None:
        """Notes the end of the joining stream: no more text can show its place."""
        if self._joining is not None and self._held:
            self._decide(last=True)

    def _note(self, chunk: Chunk) -> None:
        text, plain = _read(chunk.body)
        if text:
            self._parts.append(text)
        if not plain:
            self.plain = False
        self.finished = _finished(chunk.body) or (self.finished and not text)
        self.chunks += 1
        if self._id is None:
            self._id = chunk.body.get("id")

    def _decide(self, *, last: bool) -> None:
        skip = self._skip(last)
        if skip is None:
            return
        if skip < 0:
            self._restart()
        else:
            self._continue(skip)

    def _skip(self, last: bool) -> int | None:
        """Returns how many characters of the new text to leave out; -1: it is another answer; None: too early to
        tell."""
        seen, text = self._seen, self.text
        if not self.plain:
            return -1
        if seen.startswith(text):
            return len(text)
        if not self._continued:
            return None if text.startswith(seen) and not last else -1
        tail = text[-TAIL_CHARS:]
        if not last:
            place = tail.find(seen)
            if text.startswith(seen) or 0 <= place <= len(tail) - MIN_OVERLAP_CHARS:
                return None
        for overlap in range(min(len(seen), len(tail)), MIN_OVERLAP_CHARS - 1, -1):
            if tail.endswith(seen[:overlap]):
                return overlap
        return 0

    def _continue(self, skip: int) -> None:
        how = "continued" if self._continued else "repeated"
        self._mark, self._joined = {"rescue": how, "target": self._joining}, True
        self._joining = None
        for chunk in self._held:
            text, plain = _read(chunk.body)
            if skip and text:
                kept = text[min(skip, len(text)) :]
                skip -= len(text) - len(kept)
                if not kept and not _finished(chunk.body):
                    continue
                chunk = Chunk(_with_text(chunk.body, kept), chunk.usage)
            elif not text and plain and not chunk.usage and _opens(chunk.body):
                continue  # the role was delivered already
            self._emit(chunk)

    def _emit(self, chunk: Chunk) -> None:
        """Delivers a chunk of another stream as one of this stream."""
        body = {**chunk.body} if self._id is None else {**chunk.body, "id": self._id}
        text, plain = _read(body)
        if self.finished and self.plain and plain and not text and _finished(body):
            if chunk.usage is None:
                return
            body["choices"] = []  # the finish reason was delivered already
        if self._mark is not None:
            body["engine"], self._mark = self._mark, None
        self._deliver(Chunk(body, chunk.usage))

    def _restart(self) -> None:
        """Starts another answer: the delivered text does not count any more, and the caller is notified."""
        target, self._joining, self._joined = self._joining, None, False
        self._parts, self.chunks, self.plain, self.finished, self._id = [], 0, True, False, None
        first = self._held[0].body
        mark = {"rescue": "restarted", "target": target}
        body: dict[str, Any]
        if "choices" in first:
            # An empty choice, for callers that read the first choice of every chunk.
            nothing: dict[str, Any] = {"text": ""} if first.get("object") == "text_completion" else {"delta": {}}
            choices = [{"index": 0, **nothing, "finish_reason": None}]
            body = {**first, "choices": choices, "engine": mark}
            body.pop("usage", None)
        else:
            body = {"type": "engine.restarted", "engine": mark}
        self._ready.append(Chunk(body, restarted=True))
        for chunk in self._held:
            self._deliver(chunk)

    def _deliver(self, chunk: Chunk) -> None:
        self._note(chunk)
        self._ready.append(chunk)


def _read(body: dict[str, Any]) -> tuple[str, bool]:
    """Returns the text of a chunk, and True if nothing else in it belongs to the answer."""
    choices = body.get("choices")
    if not choices:
        # An event with a type, such as a response's: its parts of an answer can't be compared.
        return "", choices is not None
    choice = choices[0]
    plain = len(choices) == 1 and not choice.get("index") and not choice.get("logprobs")
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text")
        return text if isinstance(text, str) else "", plain
    text = delta.get("content")
    if text is None or len(delta) > 1:
        plain = plain and not any(delta.get(part) for part in _OTHER_PARTS)
    return (text, plain) if isinstance(text, str) else ("", plain and not text)


def _with_text(body: dict[str, Any], text: str) -> dict[str, Any]:
    choice = body["choices"][0]
    if "delta" in choice:
        choice = {**choice, "delta": {**choice["delta"], "content": text}}
    else:
        choice = {**choice, "text": text}
    return {**body, "choices": [choice]}


def _finished(body: dict[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in body.get("choices") or ())


def _opens(body: dict[str, Any]) -> bool:
    """Returns True if a chunk has nothing but the role."""
    choices = body.get("choices")
    return bool(choices) and not _finished(body)
