"""Batches for a model in this process: all rows that wait when the model becomes free, as far as they fit.

No row waits for others: while one batch is computed, the next one gathers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.runtimes.generation.delivery import hand_over

log = logging.getLogger("engine.runtimes")

Run = Callable[[list[Any]], list[Any]]
"""Computes a batch: one result for each item. Blocks."""


@dataclass(slots=True, eq=False)
class Item:
    """A row of a batch, or several that stay together."""

    content: Any
    kind: Hashable
    """Only items of one kind share a batch; None: always alone."""
    tokens: int
    """The share of the budget that each of its rows takes, before padding."""
    done: asyncio.Future[Any]
    rows: int = 1


@dataclass(slots=True)
class Counts:
    """Counts of the batches."""

    batches: int = 0
    rows: int = 0
    largest: int = 0


class Batcher:
    """Gathers items and computes them on its own threads, each of which takes a fair share of the waiting items."""

    def __init__(self, run: Run, name: str, *, max_rows: int, max_tokens: int, threads: int = 1) -> None:
        """At most `max_rows` rows in a batch, and at most `max_tokens` tokens with padding, but one item at least."""
        self._run = run
        self._name = name
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._waiting: deque[Item] = deque()
        self._some = threading.Condition()
        self._closed = False
        self.counts = Counts()
        self._under_way = 0
        """Rows that are being computed."""
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def compute(self, content: Any, kind: Hashable, tokens: int, rows: int = 1) -> Any:
        """Returns the result for one item. A caller who leaves takes its item away if it still waits."""
        item = Item(content, kind, tokens, asyncio.get_running_loop().create_future(), rows)
        with self._some:
            if self._closed:
                raise RuntimeError("the model was closed")
            self._waiting.append(item)
            self._some.notify()
        return await item.done

    def close(self) -> None:
        """Ends the threads after the batches in flight; waiting items fail. Blocks."""
        with self._some:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._some.notify_all()
        for item in left:
            _settle([item], RuntimeError("the model was closed"))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                batch = self._next()
                self._under_way += _rows(batch)
            if batch:
                self._compute(batch)
                with self._some:
                    self._under_way -= _rows(batch)

    def _next(self) -> list[Item]:
        """Takes the oldest item, and those of its kind that fit best with it: the nearest in length.

        No row is padded too much, and no thread takes more than its share of all rows that are here.
        """
        while self._waiting and self._waiting[0].done.cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        if first.kind is None:
            return [first]
        same = [item for item in self._waiting if item.kind == first.kind and not item.done.cancelled()]
        same.sort(key=lambda item: abs(item.tokens - first.tokens))
        share = -(-(self._under_way + first.rows + sum(item.rows for item in same)) // len(self._threads))
        batch, rows, shortest, longest = [first], first.rows, first.tokens, first.tokens
        for item in same:
            rows += item.rows
            shortest, longest = min(shortest, item.tokens), max(longest, item.tokens)
            if rows > min(share, self._max_rows) or longest * rows > self._max_tokens:
                break
            if too_much_padding(shortest, longest):
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
                log.warning("%s: %d rows at once do not fit the memory; each half goes alone", self._name, _rows(batch))
                middle = len(batch) // 2
                self._compute(batch[:middle])
                self._compute(batch[middle:])
                return
            self._fail(batch, error)
        except Exception as error:  # the boundary: a model's own code may raise anything; the caller types it
            self._fail(batch, error)
        else:
            with self._some:
                self.counts.batches += 1
                self.counts.rows += _rows(batch)
                self.counts.largest = max(self.counts.largest, _rows(batch))
            _settle(batch, results)

    def _fail(self, batch: Sequence[Item], error: Exception) -> None:
        if len(batch) == 1:
            _settle(batch, error)
            return
        for item in batch:  # one bad row must not fail the others
            self._compute([item])


def too_much_padding(tokens: int, longest: int) -> bool:
    """Returns True if a row is padded by more than a quarter, and by more than a handful of tokens."""
    return tokens * 5 < longest * 4 - 16


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if torch or OpenVINO reports a lack of memory: they have no common type for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _rows(batch: Sequence[Item]) -> int:
    return sum(item.rows for item in batch)


def _settle(batch: Sequence[Item], outcome: list[Any] | Exception) -> None:
    """Gives every item its result, or all the exception, on the event loops of their callers."""
    results = [outcome] * len(batch) if isinstance(outcome, Exception) else outcome
    pairs = zip(batch, results, strict=True)
    hand_over(((item.done.get_loop(), (item.done, result)) for item, result in pairs), _arrive)


def _arrive(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, result in results:
        if done.done():
            continue
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
