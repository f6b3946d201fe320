"""Bare HTTP clients: the cost of a call without policies. They send the same body and decode the reply."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from overhead.load import BODY, IN_FLIGHT, KEY, STREAM_BODY, Call, Contestant

_HEADERS = {"authorization": f"Bearer {KEY}"}


def aiohttp_client(path: str = "v1", stream: bool = False) -> Contestant:
    """aiohttp: `session.post` with a JSON body."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        import aiohttp

        url = f"{origin}/{path}/chat/completions"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=_HEADERS) as session:

            async def post() -> int:
                async with session.post(url, json=BODY) as reply:
                    reply.raise_for_status()
                    await reply.json()
                return 1

            async def take() -> int:
                chunks = 0
                async with session.post(url, json=STREAM_BODY) as reply:
                    reply.raise_for_status()
                    async for line in reply.content:
                        if line.startswith(b"data: {"):
                            json.loads(line[6:])
                            chunks += 1
                return chunks

            yield take if stream else post

    return contestant


def httpx_client(module: str = "httpx") -> Contestant:
    """httpx or httpx2: `client.post` with a JSON body."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        httpx = importlib.import_module(module)
        url = f"{origin}/v1/chat/completions"
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=IN_FLIGHT), headers=_HEADERS) as client:

            async def post() -> int:
                reply = await client.post(url, json=BODY)
                reply.raise_for_status()
                reply.json()
                return 1

            yield post

    return contestant
