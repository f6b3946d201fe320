"""Measures a contender: its own CPU time for each unit of work, 64 calls in flight, all with the same body."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from contest import serve

IN_FLIGHT = 64
KEY = "sk-a-key-that-opens-nothing"
MODEL = "gpt-4.1-mini"
MESSAGES = [
    {"role": "system", "content": "You answer in one short paragraph, in plain words, without lists."},
    {"role": "user", "content": "What does a loopback server leave of the time of a call, and who spends it?"},
]
BODY = {"model": MODEL, "messages": MESSAGES, "max_tokens": 256, "temperature": 0.2}
STREAM_BODY = {**BODY, "stream": True, "stream_options": {"include_usage": True}}

Call = Callable[[], Awaitable[int]]
"""One call; returns its units: 1 for a request, the number of chunks for a stream."""
Contestant = Callable[[str], AbstractAsyncContextManager[Call]]
"""Opens a contender for an origin, http://127.0.0.1:PORT."""


async def answer_rounds(contestant: Contestant, origin: str, calls: int) -> None:
    """Runs in the contender's process: measures `calls` calls for each line read."""
    loop = asyncio.get_running_loop()
    async with contestant(origin) as call:
        # `serve` blocks on its input, so it runs next to the loop.
        await asyncio.to_thread(serve, lambda: asyncio.run_coroutine_threadsafe(load(call, calls), loop).result())


async def load(call: Call, calls: int) -> dict[str, object]:
    """`figure`: µs of CPU a unit, user and system, over all threads and children; `rate`: units a second."""
    # Contenders close idle connections while the others run; opening them again is not part of the comparison. As many
    # calls as are measured: httpx' pool opens too many at first and needs hundreds of calls to settle.
    await _run(call, calls)
    started, used = time.perf_counter(), _cpu_s()
    done = await _run(call, calls)
    return {"figure": (_cpu_s() - used) / done * 1e6, "rate": done / (time.perf_counter() - started)}


async def _run(call: Call, calls: int) -> int:
    """Makes `calls` calls, `IN_FLIGHT` at a time; returns their units."""
    left = iter(range(calls))
    done = 0

    async def worker() -> None:
        nonlocal done
        for _ in left:
            units = await call()
            done += units

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return done


def _cpu_s() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        total += used.ru_utime + used.ru_stime
    return total
