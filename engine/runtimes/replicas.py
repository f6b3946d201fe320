"""Copies of one model behind one queue: each request goes to the least busy copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from engine.schemas.hardware import CudaHardwareSpec
from engine.tasks.local_model import Embeddings, Runtime, Sampling, TextDelta
from engine.tasks.pipelines import Ask

T = TypeVar("T")


def spread_hardware(hardware: Any) -> list[Any]:
    """Returns the hardware of each replica: on CUDA the next GPU, elsewhere a share of the requested threads."""
    count = hardware.replicas
    if isinstance(hardware, CudaHardwareSpec):
        return [hardware.model_copy(update={"device": hardware.device + place}) for place in range(count)]
    threads = hardware.threads and max(1, hardware.threads // count)
    return [hardware.model_copy(update={"threads": threads})] * count


class Replicas:
    """A runtime made of runtimes. `loads`: the present calls of each."""

    def __init__(self, runtimes: Sequence[Runtime]) -> None:
        self._runtimes = list(runtimes)
        self.loads = [0] * len(self._runtimes)
        self.answered = [0] * len(self._runtimes)
        """Calls that each has ended."""
        self.device = self._runtimes[0].device
        self.context_length = 0
        self.reads_pictures = False

    async def start(self) -> None:
        """Loads them one after another, so that loading needs the memory of one. Raises SetupError."""
        for runtime in self._runtimes:
            await runtime.start()
        self.context_length = min(runtime.context_length for runtime in self._runtimes)
        self.reads_pictures = self._runtimes[0].reads_pictures
        self.device = f"{len(self._runtimes)} × {self._runtimes[0].device}"

    async def aclose(self) -> None:
        """Closes all of them."""
        await asyncio.gather(*(runtime.aclose() for runtime in self._runtimes))

    async def encode_chat(self, messages: list[dict[str, Any]]) -> Any:
        """Uses the first: all have the same tokenizer."""
        return await self._runtimes[0].encode_chat(messages)

    async def encode_text(self, text: str) -> Any:
        """Uses the first."""
        return await self._runtimes[0].encode_text(text)

    async def check(self, sampling: Sampling) -> None:
        """Uses the first."""
        await self._runtimes[0].check(sampling)

    async def generate(
        self, prompt: Any, sampling: Sampling, *, whole: bool = False
    ) -> AsyncGenerator[TextDelta, None]:
        """Uses the least busy; it counts as busy until the answer ends or is closed."""
        place = self._take()
        try:
            async with aclosing(self._runtimes[place].generate(prompt, sampling, whole=whole)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._give_back(place)

    async def embed(self, texts: list[str]) -> Embeddings:
        """Uses the least busy."""
        return await self._on_one(lambda runtime: runtime.embed(texts))

    async def infer(self, task: str, ask: Ask) -> list[Any]:
        """Uses the least busy."""
        return await self._on_one(lambda runtime: runtime.infer(task, ask))

    async def _on_one(self, call: Callable[[Runtime], Awaitable[T]]) -> T:
        place = self._take()
        try:
            return await call(self._runtimes[place])
        finally:
            self._give_back(place)

    def _take(self) -> int:
        place = min(range(len(self.loads)), key=lambda index: (self.loads[index], self.answered[index]))
        self.loads[place] += 1
        return place

    def _give_back(self, place: int) -> None:
        self.loads[place] -= 1
        self.answered[place] += 1
