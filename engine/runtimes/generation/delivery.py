"""Delivers pieces from a runtime's thread to the event loops that wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from engine.core.errors import InferenceError
from engine.tasks.local_model import TextDelta

T = TypeVar("T")


class Delivery:
    """The pieces of one answer for one caller; the runtime's thread reads `cancelled` and `whole`.

    To iterate over it is to wait for them, up to the last one. Raises the InferenceError that ended the answer.
    """

    __slots__ = ("_complete", "_error", "_pieces", "_waiter", "cancelled", "loop", "whole")

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        """True: the caller needs the answer in one piece, at its end."""
        self.loop = asyncio.get_running_loop()
        self.cancelled = False
        """True: the caller has left; nothing more is needed."""
        self._complete = False
        self._pieces: deque[TextDelta] = deque()
        self._error: InferenceError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Delivery:
        return self

    async def __anext__(self) -> TextDelta:
        """Returns all that has arrived since the last call, as one piece."""
        if self._complete:
            raise StopAsyncIteration
        while not self._pieces:
            if self._error is not None:
                raise self._error
            self._waiter = self.loop.create_future()
            await self._waiter
        piece = self._pieces.popleft()
        while self._pieces:
            more = self._pieces.popleft()
            piece = TextDelta(piece.text + more.text, piece.tokens + more.tokens, more.finish_reason)
        self._complete = piece.finish_reason is not None
        return piece

    def arrive(self, item: TextDelta | InferenceError) -> None:
        """Runs on the caller's loop."""
        if isinstance(item, TextDelta):
            self._pieces.append(item)
        else:
            self._error = item
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def deliver(items: Sequence[tuple[Delivery, TextDelta | InferenceError]]) -> None:
    """Hands each caller its item, from the runtime's thread, with one wake-up for each event loop."""
    for delivery, _ in hand_over(((item[0].loop, item) for item in items), _arrive):
        delivery.cancelled = True


def hand_over(items: Iterable[tuple[asyncio.AbstractEventLoop, T]], take: Callable[[list[T]], None]) -> list[T]:
    """Calls `take` with each event loop's items on that loop, from a runtime's thread, with one wake-up for each.

    Returns the items whose loop was closed with its callers: they have no reader any more.
    """
    loops: dict[asyncio.AbstractEventLoop, list[T]] = {}
    for loop, item in items:
        loops.setdefault(loop, []).append(item)
    left: list[T] = []
    for loop, mine in loops.items():
        try:
            loop.call_soon_threadsafe(take, mine)
        except RuntimeError:
            left += mine
    return left


def _arrive(items: list[tuple[Delivery, TextDelta | InferenceError]]) -> None:
    for delivery, item in items:
        delivery.arrive(item)
