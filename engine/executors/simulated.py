"""A provider that is none: for trying pipelines and policies without a key. Every reply says that it is simulated."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

from engine.errors import FAILURES, InferenceError, InvalidRequest
from engine.executors import Services
from engine.request import Chunk, ChunkStream, Context, Request, Result, Usage
from schemas import TargetSpec


class SimulatedExecutor:
    """Answers after the latency of its spec, fails at its rate, deterministic by seed."""

    keys: tuple[str, ...] = ()
    tasks = frozenset({"chat", "completion", "embedding"})

    def __init__(self, target: TargetSpec, services: Services) -> None:
        assert target.provider.kind == "simulated"
        self.target = target
        self.spec = target.provider
        self.model = target.model_id
        self.clock = services.clock
        self.rng = Random(services.seed)

    async def start(self) -> None:
        return

    async def check(self) -> str:
        return "simulated: always there, answers are not real"

    async def aclose(self) -> None:
        return

    async def __call__(self, request: Request, context: Context) -> Result:
        spec = self.spec
        failure = self._failure()
        if failure is not None and failure.kind not in ("truncated", "malformed"):
            await self._pause(spec.latency_s)
            raise failure
        if request.task == "embedding":
            return await self._embed(request)
        words = self._words(request)
        usage = Usage(_prompt_tokens(request.body), len(words))
        if context.stream:
            return Result(request.id or "", stream=ChunkStream(self._chunks(request, words, usage, failure)))
        await self._pause(spec.latency_s + spec.token_s * len(words))
        if failure is not None:
            raise failure
        return Result(request.id or "", self._reply(request, "".join(words), usage), usage=usage)

    def _failure(self) -> InferenceError | None:
        spec = self.spec
        if spec.failure_rate == 0 or self.rng.random() >= spec.failure_rate:
            return None
        return FAILURES[spec.failure_kind](f"simulated failure: {spec.failure_kind}", retry_after_s=spec.retry_after_s)

    def _words(self, request: Request) -> list[str]:
        count = self.spec.output_tokens
        limit = request.body.get("max_completion_tokens") or request.body.get("max_tokens")
        if isinstance(limit, int):
            count = min(count, limit)
        return ["[simulated]", *(f" word{n}" for n in range(2, count + 1))][:count]

    def _reply(self, request: Request, text: str, usage: Usage) -> dict[str, Any]:
        chat = request.task == "chat"
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            "id": f"simulated-{request.id}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(self.clock.wall()),
            "model": self.model,
            "choices": [choice],
            "usage": _openai_usage(usage),
        }

    async def _chunks(
        self, request: Request, words: list[str], usage: Usage, failure: InferenceError | None
    ) -> AsyncIterator[Chunk]:
        chat = request.task == "chat"
        base = {
            "id": f"simulated-{request.id}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(self.clock.wall()),
            "model": self.model,
        }
        await self._pause(self.spec.latency_s)
        for index, word in enumerate(words):
            await self._pause(self.spec.token_s)
            if failure is not None and index == len(words) // 2:
                raise failure
            part: dict[str, Any] = {"index": 0, "finish_reason": None}
            part |= {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
            yield Chunk({**base, "choices": [part]})
        end: dict[str, Any] = {"index": 0, "finish_reason": "stop", **({"delta": {}} if chat else {"text": ""})}
        yield Chunk({**base, "choices": [end], "usage": _openai_usage(usage)}, usage)

    async def _embed(self, request: Request) -> Result:
        value = request.body.get("input")
        texts: list[Any] = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise InvalidRequest("body.input: expected a text or a list of texts, none of them empty")
        await self._pause(self.spec.latency_s)
        data = [
            {"object": "embedding", "index": index, "embedding": self._vector(text)} for index, text in enumerate(texts)
        ]
        usage = Usage(input_tokens=sum(len(text.split()) for text in texts))
        body = {"object": "list", "model": self.model, "data": data, "usage": _openai_usage(usage)}
        return Result(request.id or "", body, usage=usage)

    def _vector(self, text: str) -> list[float]:
        """A unit vector that depends on the text alone."""
        draw = Random(hashlib.sha256(text.encode()).digest())
        raw = [draw.gauss(0, 1) for _ in range(self.spec.dimensions)]
        norm = sum(x * x for x in raw) ** 0.5
        return [x / norm for x in raw]

    @staticmethod
    async def _pause(seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)


def _prompt_tokens(body: dict[str, Any]) -> int:
    messages = body.get("messages")
    texts = [message.get("content") for message in messages] if isinstance(messages, list) else [body.get("prompt")]
    return sum(len(text.split()) for text in texts if isinstance(text, str))


def _openai_usage(usage: Usage) -> dict[str, int]:
    total = usage.input_tokens + usage.output_tokens
    return {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens, "total_tokens": total}
