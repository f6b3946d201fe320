"""The engine as a contender, with every policy on: over HTTP, and over an executor that does nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from engine import Engine, Request
from engine.api.build import build
from engine.core.request import Result
from engine.core.server_info import ServerInfo
from engine.core.stream import Chunk, ChunkStream
from engine.core.usage import Usage
from overhead.load import BODY, KEY, MODEL, Call, Contestant
from overhead.server import CHUNKS, completion

EVERY_POLICY = (
    "policy.deadline.total_s=600",
    "policy/rate_limit=per_key",
    "policy.rate_limit.requests_per_min=1e9",
    "policy.rate_limit.input_tokens_per_min=1e12",
    "policy.rate_limit.output_tokens_per_min=1e12",
    "policy/concurrency=adaptive",
    "policy/cache=memory",
)
"""The stages that the default preset leaves off, with limits that are never reached. The cache looks at each request
and lets it pass, because a request with a temperature is not deterministic."""
NO_POLICY = ("policy=off",)


def over_http(path: str = "v1", transport: str = "aiohttp", stream: bool = False) -> Contestant:
    """`Engine.submit` or `Engine.stream` over HTTP."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        words = _words(f"{origin}/{path}", EVERY_POLICY, f"provider.transport.kind={transport}")
        async with Engine.compose(words) as engine:
            yield await _checked(engine, stream)

    return contestant


def over_nothing(policy: bool = True, stream: bool = False) -> Contestant:
    """`Engine.submit` or `Engine.stream` over an executor that answers with ready objects; `policy`: every or none."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        async with Engine.compose(_words(origin, EVERY_POLICY if policy else NO_POLICY)) as engine:
            engine.pipeline = build(engine.spec, engine.services, engine.resources, Nothing)  # type: ignore[arg-type]
            engine._chain = engine.pipeline.chain()
            yield await _checked(engine, stream)

    return contestant


def nothing(stream: bool = False) -> Contestant:
    """Runs that executor alone: the share of `over_nothing` that is the event loop's, the request's and the
    record's."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        executor = Nothing()

        async def submit() -> int:
            await executor(None, _PLAIN)
            return 1

        async def take() -> int:
            result = await executor(None, _STREAM)
            return sum([1 async for _ in result.stream.source])

        yield take if stream else submit

    return contestant


class _Told:
    """The part of a context that `Nothing` reads."""

    def __init__(self, stream: bool) -> None:
        self.stream = stream


_PLAIN, _STREAM = _Told(False), _Told(True)
_REPLY = completion()
_USAGE = Usage(31, CHUNKS)
_CHUNK = Chunk({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})


class Nothing:
    """An executor that yields once to the event loop, so that calls overlap, and returns a ready reply."""

    keys = ("OPENAI_API_KEY",)
    tasks = frozenset({"chat"})
    server_info = ServerInfo()

    def __init__(self, target: Any = None, services: Any = None) -> None:
        self.target = target

    async def start(self) -> None:
        return

    async def aclose(self) -> None:
        return

    async def check(self) -> str:
        return "nothing"

    async def __call__(self, request: Any, context: Any) -> Result:
        await asyncio.sleep(0)
        if context.stream:
            return Result("", stream=ChunkStream(_Ready()))
        return Result("", _REPLY, usage=_USAGE)


class _Ready:
    """Yields chunks that are all ready."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = CHUNKS

    def __aiter__(self) -> _Ready:
        return self

    async def __anext__(self) -> Chunk:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return _CHUNK


def described() -> str:
    """Describes the chain of the contenders with every policy, in one line."""
    engine = Engine.compose(_words("http://127.0.0.1:9/v1", EVERY_POLICY))
    try:
        names = [line.name for line in engine.describe()]
        return " → ".join(names[: names.index("executor") + 1])
    finally:
        engine.close()


def _words(base_url: str, policy: tuple[str, ...], *more: str) -> list[str]:
    """Returns the overrides of a run, with a second target as a fallback."""
    os.environ["OPENAI_API_KEY"] = KEY
    target = ["provider=openai", f"provider.base_url={base_url}", "model=remote", f"model.name={MODEL}"]
    second = f"fallbacks=[{{provider:{{use:openai,name:second,base_url:'{base_url}'}}}}]"
    return [*target, second, *policy, *more]


async def _checked(engine: Engine, stream: bool) -> Call:
    """Returns the measured call, after it has worked once."""

    async def submit() -> int:
        result = await engine.submit(Request("chat", BODY))
        if result.error is not None:
            raise result.error
        return 1

    async def take() -> int:
        chunks = 0
        async for _ in engine.stream(Request("chat", BODY)):
            chunks += 1
        return chunks

    call: Callable[[], Any] = take if stream else submit
    await call()
    return call
