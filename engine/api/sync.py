"""The engine for plain code: the same calls, which block until the answer is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from engine.api.map import plain_answers
from engine.core.errors import EngineError
from engine.core.request import Request, Result
from engine.core.stream import Chunk

if TYPE_CHECKING:
    from engine.api.engine import Engine

T = TypeVar("T")

_CLOSED_MEANWHILE = "this engine was closed while a request was under way"


class SyncEngine:
    """`submit`, `stream` and `map` for plain code, from any thread, also while another event loop runs in it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, request: Request, *, target: str | None = None) -> Result:
        self.refuse_deadlock()
        return self._wait(self._engine.submit(request, target=target))

    def stream(self, request: Request, *, target: str | None = None) -> Iterator[Chunk]:
        return self._pull(self._engine.stream(request, target=target))

    def map(self, requests: Iterable[Request], *, window: int | None = None, ordered: bool = True) -> Iterator[Result]:
        self.refuse_deadlock()
        engine = self._engine
        try:
            yield from plain_answers(
                lambda request: engine.call(engine.submit(request)), requests, engine.window(window), ordered
            )
        except CancelledError:
            raise EngineError(_CLOSED_MEANWHILE) from None

    def _pull(self, source: AsyncIterator[T]) -> Iterator[T]:
        self.refuse_deadlock()

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
            if not self._engine.closed:
                self._wait(end())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._engine.call(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise EngineError(_CLOSED_MEANWHILE) from None
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits any more
            raise

    def refuse_deadlock(self, instead: str = "engine.submit(…)") -> None:
        """Raises EngineError on the thread of the engine's own loop, which waiting would block."""
        if self._engine.runs_here():
            raise EngineError(f"this engine runs on this thread's event loop: await {instead} instead")
