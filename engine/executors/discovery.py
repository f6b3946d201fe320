"""Has a server describe itself and its limits once, so that it is sent nothing that it would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.core.errors import ConnectFailed, InferenceError
from engine.core.server_info import ServerInfo
from engine.dialects.client import WireCall
from engine.dialects.discovery import Discovery, DiscoveryReply

Ask = Callable[[WireCall], Awaitable[DiscoveryReply]]
"""Makes a call. Raises InferenceError."""
_WAIT_S = 2.0
"""The time that a server may take to describe itself, in seconds; then its facts stay unknown."""


class ServerDiscovery:
    """Has one server describe itself and fills in `server_info`. A page that fails is not requested again."""

    def __init__(self, dialect: Discovery, model: str, server_info: ServerInfo) -> None:
        self._dialect = dialect
        self._model = model
        self._facts = server_info
        self._asking = asyncio.Lock()
        self.done = False

    async def begin(self, ask: Ask) -> None:
        """Reads the facts while the engine starts; for a server that is not there yet, the first request does it
        again."""
        try:
            await self.learn(ask)
        except ConnectFailed:
            return

    async def learn(self, ask: Ask) -> None:
        """Reads the facts, unless another request did. Raises ConnectFailed: the request would have met the same."""
        async with self._asking:
            if self.done:
                return
            try:
                async with asyncio.timeout(_WAIT_S):
                    answers = [await _answer(ask, question) for question in self._dialect.questions(self._model)]
            except TimeoutError:
                answers = []
            if answers:
                self._facts.take(self._dialect.server_info(self._model, answers))
            self.done = True


async def _answer(ask: Ask, question: WireCall) -> DiscoveryReply:
    try:
        return await ask(question)
    except ConnectFailed:
        raise
    except InferenceError as error:
        return DiscoveryReply(error.status or error.status_code, b"")
