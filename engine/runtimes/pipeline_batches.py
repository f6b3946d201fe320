"""Batches for a model in this process: what waits when the model becomes free goes together, as far as it fits.

One thread owns the model. Nothing waits for company: while one batch is computed, the next one gathers.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[list[Any]], list[Any]]
"""Computes a batch: one result for each item. Blocks."""


@dataclass(slots=True, eq=False)
class Item:
    """One row of a batch."""

    content: Any
    kind: Hashable
    """Only items of one kind go together; None: always alone."""
    tokens: int
    """How much of the budget it takes, before padding."""
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


@dataclass(slots=True)
class Counts:
    """What the batches were like."""

    batches: int = 0
    rows: int = 0
    largest: int = 0
    halved: int = 0
    """Batches that were too large for the memory, and were computed in halves."""
    errors: list[str] = field(default_factory=list)


class Batcher:
    """Gathers items and computes them on its own thread."""

    def __init__(self, run: Run, name: str, *, max_rows: int, max_tokens: int) -> None:
        """At most `max_rows` rows in a batch, and at most `max_tokens` tokens with padding."""
        self._run = run
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._waiting: deque[Item] = deque()
        self._some = threading.Condition()
        self._closed = False
        self.counts = Counts()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def compute(self, content: Any, kind: Hashable, tokens: int) -> Any:
        """The result for one item. A caller who leaves takes its item away if it still waits."""
        loop = asyncio.get_running_loop()
        item = Item(content, kind, tokens, loop, loop.create_future())
        with self._some:
            if self._closed:
                raise RuntimeError("the model was closed")
            self._waiting.append(item)
            self._some.notify()
        return await item.done

    def close(self) -> None:
        """Ends the thread after the batch that is under way; what still waits fails. Blocks."""
        with self._some:
            self._closed = True
            self._some.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    left = list(self._waiting)
                    break
                batch = self._next()
            if batch:
                self._compute(batch)
        for item in left:
            _settle(item, None, RuntimeError("the model was closed"))

    def _next(self) -> list[Item]:
        """The oldest item, and those of its kind that fit best with it: the nearest in length."""
        while self._waiting and self._waiting[0].done.cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        if first.kind is None:
            return [first]
        same = [item for item in self._waiting if item.kind == first.kind and not item.done.cancelled()]
        same.sort(key=lambda item: abs(item.tokens - first.tokens))
        batch, longest = [first], first.tokens
        for item in same:
            longest = max(longest, item.tokens)
            if len(batch) == self._max_rows or longest * (len(batch) + 1) > self._max_tokens:
                break
            batch.append(item)
        taken = set(map(id, batch))
        self._waiting = deque(item for item in self._waiting if id(item) not in taken)
        return batch

    def _compute(self, batch: Sequence[Item]) -> None:
        try:
            results = self._run([item.content for item in batch])
        except (MemoryError, RuntimeError) as error:
            if len(batch) > 1 and is_out_of_memory(error):
                self.counts.halved += 1
                middle = len(batch) // 2
                self._compute(batch[:middle])
                self._compute(batch[middle:])
                return
            self._fail(batch, error)
        except Exception as error:  # the boundary: a model's own code may raise anything; the caller types it
            self._fail(batch, error)
        else:
            self.counts.batches += 1
            self.counts.rows += len(batch)
            self.counts.largest = max(self.counts.largest, len(batch))
            for item, result in zip(batch, results, strict=True):
                _settle(item, result, None)

    def _fail(self, batch: Sequence[Item], error: Exception) -> None:
        if len(batch) == 1:
            _settle(batch[0], None, error)
            return
        for item in batch:  # one bad row must not fail the others
            self._compute([item])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or OpenVINO says that memory is short: they have no common type for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _settle(item: Item, result: Any, error: Exception | None) -> None:
    def settle() -> None:
        if item.done.done():
            return
        if error is not None:
            item.done.set_exception(error)
        else:
            item.done.set_result(result)

    try:
        item.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop of a caller who is gone was closed
        return
