"""Replies on their way to the caller: what a server echoes is masked, a stream is closed whatever way it is left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from engine.core.errors import InferenceError, Malformed, TimedOut, Truncated
from engine.core.stream import Chunk
from engine.credentials.masking import StreamMask, mask_bytes
from engine.transports.transport import HttpReply

if TYPE_CHECKING:
    from engine.dialects.client import Reply, StreamDecoder

_END_S = 0.05
"""After a stream's terminator: how long to wait for the end of the body, so that the connection can be used again."""


async def whole_transcript(answer: Reply) -> AsyncIterator[Chunk]:
    """A transcript that came at once, as the event that ends one."""
    yield Chunk({"type": "transcript.text.done", **answer.body}, answer.usage)


class MaskedReply:
    """A reply without a key that it repeats."""

    __slots__ = ("_forms", "_reply", "headers", "status")

    def __init__(self, reply: HttpReply, forms: tuple[bytes, ...]) -> None:
        self._reply = reply
        self._forms = forms
        self.status = reply.status
        self.headers = reply.headers

    async def read(self) -> bytes:
        return mask_bytes(await self._reply.read(), self._forms)

    async def chunks(self) -> AsyncIterator[bytes]:
        mask = StreamMask(self._forms)
        async for data in self._reply.chunks():
            yield mask.feed(data)

    async def aclose(self) -> None:
        await self._reply.aclose()


class ReplyChunks:
    """The chunks of one reply, without the key that it may repeat. Whatever way it is left, the reply is closed."""

    __slots__ = ("_begun", "_decoder", "_done", "_mask", "_ready", "_reply", "_settle", "_source")

    def __init__(
        self, reply: HttpReply, decoder: StreamDecoder, mask: StreamMask, settle: Callable[[InferenceError], None]
    ) -> None:
        """`settle` hears what broke it, before anybody else does."""
        self._reply = reply
        self._source = reply.chunks()
        self._decoder = decoder
        self._mask = mask
        self._settle = settle
        self._ready: deque[Chunk] = deque()
        self._done = False
        self._begun = False

    def __aiter__(self) -> ReplyChunks:
        return self

    async def __anext__(self) -> Chunk:
        ready = self._ready
        if ready:
            return ready.popleft()
        if self._done:
            raise StopAsyncIteration
        try:
            while not self._decoder.ended:
                try:
                    data = await self._source.__anext__()
                except StopAsyncIteration:
                    break
                chunks = self._decoder.feed(self._mask.feed(data))
                if chunks:
                    self._begun = True
                    ready.extend(chunks)
                    return ready.popleft()
            ready.extend(self._decoder.finish())
            await self._await_end()
        except InferenceError as error:
            await self.aclose()
            self._settle(error)
            if self._begun and isinstance(error, Malformed | TimedOut):
                # Whatever broke it: what has come so far is an answer without its end.
                raise Truncated(error.message, status=error.status) from error
            raise
        except BaseException:
            await self.aclose()
            raise
        self._done = True
        await self._reply.aclose()
        if ready:
            return ready.popleft()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._done = True
        self._ready.clear()
        await self._reply.aclose()

    async def _await_end(self) -> None:
        """Reads what follows the terminator: nothing, but a body read to its end leaves a connection to use again."""
        try:
            async with asyncio.timeout(_END_S):
                async for _ in self._source:
                    pass
        except (InferenceError, TimeoutError):
            # The answer is complete; only the connection is lost.
            return
