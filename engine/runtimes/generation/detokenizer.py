"""Turns tokens into text while they are generated: whole characters only, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[list[int]]], list[str]]
"""Returns the text of each list of tokens, without special tokens."""

_STUCK = 16
"""Steps without a new character after which incomplete bytes are dropped."""


class Detokenizer:
    """The text of one answer as its tokens arrive.

    A token's text can depend on the tokens before it (a leading space, a character in several tokens),
    so each new piece is the difference between the text of a short window with and without the new tokens.
    """

    __slots__ = ("_hold", "_ids", "_known", "_start", "_stop", "_stuck", "stopped")

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._start = 0
        """Start of the window."""
        self._known = 0
        """Tokens whose text has been taken."""
        self._stuck = 0
        """Steps without a new character."""
        self._hold = ""
        """Text that may turn out to be the beginning of a stop string."""
        self.stopped = False
        """True once a stop string was met."""

    def push(self, tokens: Sequence[int]) -> None:
        self._ids.extend(tokens)

    @property
    def windows(self) -> tuple[list[int], list[int]]:
        """Returns the tokens of the window whose text is known, and the whole window."""
        return self._ids[self._start : self._known], self._ids[self._start :]

    def take(self, before: str, after: str, last: bool) -> str:
        """Returns the new text, from the two windows' texts; `last` releases the text that was held."""
        # U+FFFD at the end is an incomplete character.
        whole = after.rstrip("\ufffd")
        grown = len(whole) > len(before) and len(whole) == len(after)
        if not grown and not last:
            self._stuck += 1
            if self._stuck < _STUCK:
                return ""
        self._stuck = 0
        self._start, self._known = self._known, len(self._ids)
        return self._filter(whole[len(before) :], last)

    def _filter(self, fresh: str, last: bool) -> str:
        if not self._stop:
            return fresh
        text = self._hold + fresh
        ends = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if ends:
            self.stopped, self._hold = True, ""
            return text[: min(ends)]
        held = 0 if last else max(_overlap(text, stop) for stop in self._stop)
        self._hold = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest end of `text` with which `stop` begins."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0


def advance(texts: Sequence[Detokenizer], lasts: Sequence[bool], decode: Decode) -> list[str]:
    """Returns the new text of each answer; all are decoded in one call."""
    windows: list[list[int]] = []
    for text in texts:
        before, after = text.windows
        if before:
            windows.append(before)
        if after:
            windows.append(after)
    decoded = iter(decode(windows) if windows else [])
    fresh = []
    for text, last in zip(texts, lasts, strict=True):
        before, after = text.windows
        known = next(decoded) if before else ""
        fresh.append(text.take(known, next(decoded) if after else "", last))
    return fresh
