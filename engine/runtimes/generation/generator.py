"""The shared part of all runtimes' generators: checks a request, hands it over, and answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from engine.core.errors import Internal, TooLong
from engine.runtimes.generation.delivery import Delivery
from engine.runtimes.generation.prompts import Prompt
from engine.tasks.local_model import Sampling, TextDelta


class Generator(Protocol):
    """Runs the generations of one model on a thread of its own."""

    @property
    def steps(self) -> int:
        """Counts the computed steps, each for all sequences together."""
        ...

    def check(self, schema: str) -> None:
        """Makes the schema's grammar. Blocks. Raises InvalidRequest, and SetupError when a package is missing."""
        ...

    def submit(self, tokens: Any, sampling: Sampling, delivery: Delivery, extras: dict[str, Any] | None = None) -> None:
        """Queues a generation; returns at once."""
        ...

    def close(self) -> None:
        """Stops every generation and waits for the thread. Blocks."""
        ...


async def check(generator: Generator | None, sampling: Sampling) -> None:
    """Raises as `Generator.check`, and Internal without a generator."""
    if generator is None:
        raise Internal("the model is not loaded")
    if sampling.schema is not None:
        await asyncio.to_thread(generator.check, sampling.schema)


async def answer(
    generator: Generator | None,
    prompt: Prompt,
    sampling: Sampling,
    *,
    context_length: int,
    whole: bool,
    verify: Callable[[], None] | None = None,
) -> AsyncGenerator[TextDelta, None]:
    """Yields the answer, as Runtime.generate. Calls `verify` at every piece, which may raise."""
    if generator is None:
        raise Internal("the model is not loaded")
    if len(prompt) >= context_length:
        raise TooLong(f"the prompt has {len(prompt)} tokens or more, and the model reads {context_length}")
    await check(generator, sampling)
    delivery = Delivery(whole=whole and not sampling.stop)
    generator.submit(prompt.tokens, sampling, delivery, prompt.extras)
    try:
        async for piece in delivery:
            if verify is not None:
                verify()
            yield piece
    finally:
        delivery.cancelled = True
