"""How pieces travel from a runtime's thread to the event loops that wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from engine.errors import InferenceError
from engine.runtime import Piece


class Delivery:
    """The pieces of one answer on their way to one caller; the runtime's thread reads `cancelled` and `whole`.

    To iterate over it is to wait for them, up to the last one. Raises the InferenceError that ended the answer.
    """

    __slots__ = ("_complete", "_error", "_pieces", "_waiter", "cancelled", "loop", "whole")

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        """The caller wants the answer in one piece, at its end."""
        self.loop = asyncio.get_running_loop()
        self.cancelled = False
        """The caller has left; nothing more is wanted."""
        self._complete = False
        self._pieces: deque[Piece] = deque()
        self._error: InferenceError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Delivery:
        return self

    async def __anext__(self) -> Piece:
        """What has arrived since the last call, as one piece."""
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
            piece = Piece(piece.text + more.text, piece.tokens + more.tokens, more.finish_reason)
        self._complete = piece.finish_reason is not None
        return piece

    def arrive(self, item: Piece | InferenceError) -> None:
        """On the caller's loop."""
        if isinstance(item, Piece):
            self._pieces.append(item)
        else:
            self._error = item
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def deliver(items: Sequence[tuple[Delivery, Piece | InferenceError]]) -> None:
    """From the runtime's thread: hands each caller its item, with one wake-up for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Delivery, Piece | InferenceError]]] = {}
    for delivery, item in items:
        loops.setdefault(delivery.loop, []).append((delivery, item))
    for loop, mine in loops.items():
        try:
            loop.call_soon_threadsafe(_arrive, mine)
        except RuntimeError:  # the loop was closed with its callers; nobody waits any more
            for delivery, _ in mine:
                delivery.cancelled = True


def _arrive(items: list[tuple[Delivery, Piece | InferenceError]]) -> None:
    for delivery, item in items:
        delivery.arrive(item)
