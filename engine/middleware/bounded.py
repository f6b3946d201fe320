"""A chunk source whose every step has a time limit. Used by the stages that limit streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from engine.errors import InferenceError
from engine.request import Chunk


class BoundedSource:
    """Passes chunks on. A class and not a generator: closing a generator that never started would close nothing."""

    __slots__ = ("_exceeded", "_limit", "_source")

    def __init__(
        self,
        source: AsyncIterator[Chunk],
        limit: Callable[[], float | None],
        exceeded: Callable[[], InferenceError],
    ) -> None:
        """`limit` gives the seconds that the next step may take, None for no limit."""
        self._source = source
        self._limit = limit
        self._exceeded = exceeded

    def __aiter__(self) -> BoundedSource:
        return self

    async def __anext__(self) -> Chunk:
        limit = self._limit()
        if limit is None:
            return await self._source.__anext__()
        try:
            async with asyncio.timeout(limit):
                return await self._source.__anext__()
        except TimeoutError as error:
            await self.aclose()
            raise self._exceeded() from error

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()
