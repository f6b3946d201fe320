"""Many requests, few at a time: a lazily read source, a window of requests in flight, a result for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Iterator
from concurrent import futures
from typing import Any

from engine.core.request import Request, Result


async def answers(
    submit: Callable[[Request], Coroutine[Any, Any, Result]],
    requests: Iterable[Request] | AsyncIterable[Request],
    window: int,
    ordered: bool,
) -> AsyncGenerator[Result, None]:
    """Yields a result for each request, at most `window` in flight. Leaving the iterator cancels and awaits these.

    A result does not wait for a source that is slow. What a source raises comes after the results of its requests.
    """
    pending: deque[asyncio.Task[Result]] = deque()
    source = aiter(requests) if isinstance(requests, AsyncIterable) else None
    plain = iter(()) if isinstance(requests, AsyncIterable) else iter(requests)
    coming: asyncio.Future[Request] | None = None
    failure: Exception | None = None
    ended = False
    try:
        while pending or not ended:
            while not ended and len(pending) < window:
                try:
                    if source is None:
                        request = next(plain)
                    else:
                        coming = coming or asyncio.ensure_future(anext(source))
                        if not coming.done():
                            break
                        last, coming = coming, None
                        request = last.result()
                except (StopIteration, StopAsyncIteration):
                    ended = True
                except Exception as error:  # the source's own; raised below, when its requests are answered
                    ended, failure = True, error
                else:
                    pending.append(asyncio.create_task(submit(request)))
            awaited: set[asyncio.Future[Any]] = {pending[0]} if ordered and pending else set(pending)
            if coming is not None and len(pending) < window:
                awaited.add(coming)
            if awaited:
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in awaited if task is not coming]:
                if task.done():
                    pending.remove(task)  # type: ignore[arg-type]
                    yield task.result()
        if failure is not None:
            raise failure
    finally:
        left: list[asyncio.Future[Any]] = [*pending, coming] if coming is not None else [*pending]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def plain_answers(
    submit: Callable[[Request], futures.Future[Result]], requests: Iterable[Request], window: int, ordered: bool
) -> Iterator[Result]:
    """`answers` for plain code. The source is read on the caller's thread, where its files and cursors live."""
    pending: deque[futures.Future[Result]] = deque()
    plain = iter(requests)
    failure: Exception | None = None
    ended = False
    try:
        while pending or not ended:
            if not ended and len(pending) < window:
                try:
                    request = next(plain)
                except StopIteration:
                    ended = True
                except Exception as error:  # as above
                    ended, failure = True, error
                else:
                    pending.append(submit(request))
            elif pending:
                futures.wait([pending[0]] if ordered else pending, return_when=futures.FIRST_COMPLETED)
            for future in [pending[0]] if ordered and pending else list(pending):
                if future.done():
                    pending.remove(future)
                    yield future.result()
        if failure is not None:
            raise failure
    finally:
        for future in pending:
            future.cancel()
