"""Exists only to be type-checked: what a user's type checker sees of the library's public names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from engine import Chunk, ConfigError, Engine, EngineError, InferenceError, Request, Result, RunSpec, Usage


async def awaits(engine: Engine, request: Request) -> None:
    result = await engine.submit(request, target="groq/llama-3.1-8b")
    assert_type(result, Result)
    assert_type(result.ok, bool)
    assert_type(result.text, str | None)
    assert_type(result.body, dict[str, Any] | None)
    assert_type(result.error, InferenceError | None)
    assert_type(result.usage, Usage | None)
    assert_type(result.engine.cost, float | None)
    assert_type(engine.stream(request), AsyncIterator[Chunk])
    async for chunk in engine.stream(request):
        assert_type(chunk.text, str)
    async for answer in engine.map([request], ordered=False):
        assert_type(answer, Result)


def waits(engine: Engine, request: Request) -> None:
    assert_type(engine.sync.submit(request), Result)
    assert_type(engine.sync.stream(request), Iterator[Chunk])
    assert_type(engine.sync.map([request]), Iterator[Result])
    engine.policy.queue.concurrency = 8
    assert_type(engine.policy.breaker.states, dict[str, str])
    assert_type(engine.targets, list[str])
    assert_type(engine.spec, RunSpec)


def makes() -> Engine:
    try:
        return Engine.compose(["provider=groq"], config_dir="conf")
    except ConfigError as error:
        assert_type(error.exit_code, int)
        raise
    except EngineError:
        raise
