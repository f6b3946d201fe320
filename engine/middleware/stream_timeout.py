"""A chunk source whose every step has a time limit. Used by the stages that limit streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from engine.core.errors import InferenceError
from engine.core.stream import Chunk
from engine.core.watchdog import Watchdog


class BoundedSource:
    """Passes chunks on. A class and not a generator: closing a generator that never started would close nothing."""

    __slots__ = ("_dog", "_exceeded", "_limit", "_source")

    def __init__(
        self,
        source: AsyncIterator[Chunk],
        limit: Callable[[], float | None],
        exceeded: Callable[[], InferenceError],
        dog: Watchdog,
    ) -> None:
        """`limit` returns the deadline of the next step, in the loop's seconds; None for no limit."""
        self._source = source
        self._limit = limit
        self._exceeded = exceeded
        self._dog = dog

    def __aiter__(self) -> BoundedSource:
        return self

    async def __anext__(self) -> Chunk:
        at = self._limit()
        if at is None:
            return await self._source.__anext__()
        watch = self._dog.watch()
        watch.until(at)
        try:
            chunk = await self._source.__anext__()
        except asyncio.CancelledError as error:
            if watch.close():
                await self.aclose()
                raise self._exceeded() from error
            raise
        except BaseException:
            watch.close()
            raise
        watch.close()
        return chunk

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
