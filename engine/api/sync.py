"""The engine for plain code: the same calls, which block until the answer is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Protocol, TypeVar

from engine.api.loop_host import LoopHost
from engine.api.map import plain_answers
from engine.core.errors import EngineError
from engine.core.request import Request, Result
from engine.core.stream import Chunk

T = TypeVar("T")

_CLOSED_MEANWHILE = "this engine was closed while a request was in flight"


class Submit(Protocol):
    """`Engine.submit`."""

    def __call__(self, request: Request, *, target: str | None = None) -> Coroutine[Any, Any, Result]: ...


class Stream(Protocol):
    """`Engine.stream`."""

    def __call__(self, request: Request, *, target: str | None = None) -> AsyncIterator[Chunk]: ...


class SyncEngine:
    """`submit`, `stream` and `map` for plain code, from any thread, also while another event loop runs in it."""

    def __init__(self, submit: Submit, stream: Stream, window: Callable[[int | None], int], host: LoopHost) -> None:
        self._submit = submit
        self._stream = stream
        self._window = window
        self._host = host

    def submit(self, request: Request, *, target: str | None = None) -> Result:
        self._host.refuse_deadlock()
        return self._wait(self._submit(request, target=target))

    def stream(self, request: Request, *, target: str | None = None) -> Iterator[Chunk]:
        return self._pull(self._stream(request, target=target))

    def map(self, requests: Iterable[Request], *, window: int | None = None, ordered: bool = True) -> Iterator[Result]:
        self._host.refuse_deadlock()
        call, submit = self._host.call, self._submit
        try:
            yield from plain_answers(lambda request: call(submit(request)), requests, self._window(window), ordered)
        except CancelledError:
            raise EngineError(_CLOSED_MEANWHILE) from None

    def _pull(self, source: AsyncIterator[T]) -> Iterator[T]:
        self._host.refuse_deadlock()

        async def step() -> tuple[bool, T | None]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        async def end() -> None:
            await source.aclose()  # type: ignore[attr-defined]

        try:
            while True:
                more, item = self._wait(step())
                if not more:
                    return
                yield item  # type: ignore[misc]
        finally:
            if not self._host.closed:
                self._wait(end())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._host.call(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise EngineError(_CLOSED_MEANWHILE) from None
        except BaseException:
            future.cancel()  # Ctrl-C: the caller left
            raise
