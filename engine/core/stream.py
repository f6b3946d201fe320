"""A streaming reply: its chunks, and what is settled when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from engine.core.errors import Cancelled, InferenceError, Internal
from engine.core.reply_text import delta_text
from engine.core.usage import Usage


@dataclass(slots=True)
class Chunk:
    """One piece of a stream. `body` is an OpenAI chunk, or an event with a `type`; `usage` comes with the chunk that
    carries it."""

    body: dict[str, Any]
    usage: Usage | None = None
    restarted: bool = False
    """Drops all earlier chunks: the answer begins anew here, on another attempt. `body` then has an empty
    choice, or the type `engine.restarted`, and `engine` in it says the same."""

    @property
    def text(self) -> str:
        """The text that this chunk adds; empty if it adds none."""
        return delta_text(self.body)


class ChunkStream:
    """The chunks of one attempt, as an async iterator that settles exactly once.

    Whatever a stage holds for the call (a slot, a permit, a span) it gives back in a callback that it registers with
    `on_settle`. Callbacks run once, innermost stage first, when the stream ends, fails, is closed or is cancelled;
    they get None for a true end, else the error. A stream that is dropped before it started settles in `aclose`.
    """

    __slots__ = ("_on_first", "_on_settle", "_outcome", "_primed", "_settled", "delivered", "source", "usage")

    def __init__(self, source: AsyncIterator[Chunk]) -> None:
        self.source = source
        self.delivered = 0
        """Chunks that have come."""
        self.usage: Usage | None = None
        """As the chunks say; set before it settles."""
        self._primed: list[Chunk] = []
        self._on_settle: list[Callable[[InferenceError | None], None]] = []
        self._on_first: list[Callable[[], None]] = []
        self._settled = False
        self._outcome: InferenceError | None = None

    def on_settle(self, callback: Callable[[InferenceError | None], None]) -> None:
        """Calls back when the stream has settled; at once if it has already."""
        if self._settled:
            callback(self._outcome)
        else:
            self._on_settle.append(callback)

    def on_first(self, callback: Callable[[], None]) -> None:
        """Calls back when the first chunk arrives."""
        self._on_first.append(callback)

    @property
    def primed(self) -> bool:
        """True while a first chunk is kept."""
        return bool(self._primed)

    async def prime(self) -> None:
        """Waits for the first chunk and keeps it, so that a failure before it can still be retried."""
        if not self._primed and not self._settled:
            try:
                self._primed.append(await self._pull())
            except StopAsyncIteration:
                return

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._primed:
            return self._primed.pop()
        if self._settled:
            raise StopAsyncIteration
        return await self._pull()

    async def _pull(self) -> Chunk:
        try:
            chunk = await self.source.__anext__()
        except StopAsyncIteration:
            self._settle(None)
            raise
        except InferenceError as error:
            self._settle(error)
            raise
        except (asyncio.CancelledError, GeneratorExit) as error:
            self._settle(Cancelled(f"the stream was stopped: {type(error).__name__}"))
            await self._close_source()
            raise
        except Exception as error:  # the boundary: a defect of a source is this stream's failure
            failure = Internal(f"{type(error).__name__}: {error}")
            self._settle(failure)
            await self._close_source()
            raise failure from error
        self.delivered += 1
        if chunk.usage is not None:
            self.usage = chunk.usage
        if self._on_first:
            callbacks, self._on_first = self._on_first, []
            for callback in callbacks:
                callback()
        return chunk

    async def aclose(self) -> None:
        """Leaves the stream: the upstream call is cancelled and everything held for it is given back."""
        self._primed.clear()
        if self._settled:
            return
        try:
            await self._close_source()
        finally:
            self._settle(Cancelled("the caller left the stream"))

    async def _close_source(self) -> None:
        close = getattr(self.source, "aclose", None)
        if close is not None:
            await close()

    def _settle(self, error: InferenceError | None) -> None:
        if self._settled:
            return
        self._settled = True
        self._outcome = error
        for callback in self._on_settle:
            callback(error)
