"""Continuous batching with torch: requests join and leave between steps, by transformers' managers.

Greedy requests have a manager of their own, so that they skip the sort of the vocabulary; sampled requests have
another. Each is opened by its first request. Requests that a manager can't serve (images, schemas, penalties, min_p, a
seed of their own) go to static batches.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from engine.core.errors import Internal, TooLong
from engine.runtimes.generation import sequences
from engine.runtimes.generation.delivery import Delivery
from engine.runtimes.generation.generator import Generator
from engine.runtimes.generation.sequences import Row
from engine.runtimes.torch import paged as torch_paged
from engine.runtimes.torch.static_batches import StaticGenerator
from engine.schemas.hardware import CudaHardwareSpec
from engine.tasks.local_model import Sampling

POLL_S = 0.005
"""The time that the reader waits for tokens before it looks for new and cancelled requests, in seconds."""
IDLE_S = 1.0
"""The time that it waits for a request before it checks if the process is ending, in seconds."""
SHARES = (0.45, 0.6)
"""Share of the free memory for the first manager and for the second. A fifth is left for static batches."""
FAILURES_IN_A_ROW = 3
"""Managers that may fail without a token before their requests go to static batches."""
SMALLER = 0.7
"""Factor on a cache's size after the device ran out of memory."""
PAGE_MARGIN = 16
"""Tokens from the end of a page within which a request is not cancelled."""
GIB = 2**30

log = logging.getLogger("engine.runtimes")


def generator(model: Any, tokenizer: Any, hardware: CudaHardwareSpec, seed: int) -> Generator:
    """Makes continuous batching if the hardware's settings and the model allow it, else static batches. Blocks."""
    if hardware.continuous_batching:
        try:
            paged = torch_paged.prepared(model, hardware)
        except torch_paged.Unsuited as reason:
            log.warning("%s: static batches instead of continuous batching: %s", type(model).__name__, reason)
        else:
            cache_bytes = None if hardware.kv_cache_gib is None else int(hardware.kv_cache_gib * GIB)
            return ContinuousGenerator(model, paged, tokenizer, hardware.max_sequences, seed, cache_bytes)
    return StaticGenerator(model, tokenizer, hardware.max_sequences, seed)


class ContinuousGenerator:
    """Two managers and static batches over the weights of one model.

    `paged` is the model as the managers run it, possibly with another attention. `cache_bytes` is for both KV caches;
    None: the free memory.
    """

    def __init__(
        self, model: Any, paged: Any, tokenizer: Any, max_sequences: int, seed: int, cache_bytes: int | None = None
    ) -> None:
        self._paged = paged
        self._max_sequences = max_sequences
        self._cache_bytes = cache_bytes
        self._rng = random.Random(seed)
        self._opened = 0
        self._gate = threading.Lock()
        """Held while a manager is opened, which seeds torch's generator, and while a seeded request draws from it."""
        self._static = StaticGenerator(model, tokenizer, max_sequences, seed, self._alone)
        self._greedy = _Lane("greedy", self._opener(sampled=False), self._static, model, tokenizer)
        self._sampled = _Lane("sampled", self._opener(sampled=True), self._static, model, tokenizer)

    @property
    def steps(self) -> int:
        """Counts the forward passes of all three."""
        return self._static.steps + self._greedy.steps + self._sampled.steps

    def check(self, schema: str) -> None:
        """Makes the schema's grammar. Blocks. Raises InvalidRequest, and SetupError without llguidance."""
        self._static.check(schema)

    def submit(
        self, ids: list[int], sampling: Sampling, delivery: Delivery, extras: dict[str, Any] | None = None
    ) -> None:
        """Queues a generation; returns at once."""
        if extras or not _plain(sampling):
            self._static.submit(ids, sampling, delivery, extras)
        else:
            lane = self._greedy if sampling.temperature == 0 else self._sampled
            lane.submit(Row(ids, sampling, delivery, None))

    def close(self) -> None:
        """Stops every generation and waits for the threads. Blocks."""
        self._greedy.leave()
        self._sampled.leave()
        self._static.close()  # first: a seeded request holds the sampled manager's loop
        self._greedy.join()
        self._sampled.join()
        self._paged = None

    def _opener(self, *, sampled: bool) -> Callable[[float], Any]:
        def opened(scale: float) -> Any:
            with self._gate:
                share = SHARES[min(self._opened, len(SHARES) - 1)]
                manager = torch_paged.open_manager(
                    self._paged,
                    sampled=sampled,
                    max_sequences=self._max_sequences,
                    share=share * scale,
                    cache_bytes=None if self._cache_bytes is None else int(self._cache_bytes / 2 * scale),
                    seed=self._rng.getrandbits(31),
                )
                manager.start()
                self._opened += 1
                return manager

        return opened

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps the managers from torch's generator, which they share, while it is open."""
        with self._gate, ExitStack() as stack:
            manager = self._sampled.manager
            if manager is not None:
                try:
                    stack.enter_context(manager.pause())
                except RuntimeError:
                    log.debug("the sampled manager has ended; nothing to pause")
            yield


class _Running:
    """A row of a manager."""

    __slots__ = ("row", "seen", "taken")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.seen = 0
        """Tokens of the answer so far."""
        self.taken = 0
        """Tokens that became text; for a whole answer 0 before its end."""


class _Lane:
    """One manager, opened on demand, and the thread that hands it requests and reads its tokens."""

    def __init__(
        self, name: str, opened: Callable[[float], Any], static: StaticGenerator, model: Any, tokenizer: Any
    ) -> None:
        self.manager: Any = None
        self._name = name
        self._opened = opened
        self._static = static
        self._ends = sequences.ends_of(model)
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._decode = sequences.decoder(tokenizer)
        self._inbox: SimpleQueue[Row | None] = SimpleQueue()
        self._running: dict[str, _Running] = {}
        self._count = 0
        self._failures = 0
        self._scale = 1.0
        self._room = 0
        self._overlapping = False
        """True if the manager prepares a step while it computes the one before."""
        self._past_steps = 0
        self._gate = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"torch-{name}", daemon=True)
        self._thread.start()

    @property
    def steps(self) -> int:
        manager = self.manager
        return self._past_steps + (getattr(manager, "current_batch", 0) if manager is not None else 0)

    def submit(self, row: Row) -> None:
        with self._gate:
            if not self._closing:
                self._inbox.put(row)
                return
        sequences.fail([row], Internal("the model was closed while a request was on its way"))

    def leave(self) -> None:
        """Ends the thread after its current step; returns at once."""
        with self._gate:
            self._closing = True
        self._inbox.put(None)

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._admit()
            if self._running and not self._closing:
                try:
                    self._read()
                except Exception as error:  # any error of the manager is its requests' failure; no request may hang
                    self._end(error)
        self._end(Internal("the model was closed while it was generating"))
        sequences.fail(self._left(), Internal("the model was closed before it answered"))

    def _admit(self) -> None:
        """Hands new requests to the manager; waits for one when idle."""
        idle = not self._running
        while not self._closing:
            try:
                row = self._inbox.get(block=idle, timeout=IDLE_S)
            except Empty:
                # The manager's thread would keep a process alive that ends without `close`.
                self._closing = self._closing or not threading.main_thread().is_alive()
                if idle:
                    continue
                return
            idle = False
            if row is None:
                return
            if not row.delivery.cancelled:
                self._start(row)

    def _start(self, row: Row) -> None:
        while self.manager is not None or self._open():
            left = self._room - len(row.ids)
            if left < 1:
                sequences.fail([row], _no_room(len(row.ids), self._room))
                return
            self._count += 1
            name = f"{self._name}-{self._count}"
            self._running[name] = _Running(row)
            # Where steps overlap, a whole answer comes token by token, too: its position in a page decides the
            # cancellation.
            streaming = self._overlapping or not row.delivery.whole
            most = min(row.sampling.max_tokens, left)
            if self.manager.add_request(row.ids, name, most, streaming=streaming, **self._options(row.sampling)):
                return
            del self._running[name]  # it has ended; this request did not fail
            self._end(self.manager.background_thread_status.fatal_error)
        self._static.submit(row.ids, row.sampling, row.delivery)

    def _options(self, sampling: Sampling) -> dict[str, float | int]:
        if sampling.temperature == 0:
            return {}
        return torch_paged.sampling_options(sampling.temperature, sampling.top_p, sampling.top_k, self._vocabulary)

    def _open(self) -> bool:
        """Returns True if there is a manager now. After too many failures no new one is opened."""
        if self._failures >= FAILURES_IN_A_ROW:
            return False
        try:
            self.manager = self._opened(self._scale)
        except Exception as error:  # the boundary: no memory, or an error of the device; static batches need less
            log.warning("continuous batching of %s requests can't start: %s; static batches", self._name, error)
            self._failures = FAILURES_IN_A_ROW
            return False
        self._room = torch_paged.room(self.manager)
        self._overlapping = bool(self.manager.continuous_batching_config.use_async_batching)
        return True

    def _read(self) -> None:
        """Takes the generated tokens, delivers them, and releases requests that have ended or were cancelled."""
        latest: dict[str, Any] = {}
        output = self.manager.get_result(timeout=POLL_S)
        while output is not None:
            latest[output.request_id] = output
            output = self.manager.get_result(timeout=0)
        news = []
        for name, output in latest.items():
            running = self._running.get(name)
            if running is None:
                continue
            if output.error is not None:
                self._forget(name, output.error)
                continue
            row, last = running.row, output.is_finished()
            running.seen = len(output.generated_tokens)
            if (last or not row.delivery.whole) and not row.ended and not row.delivery.cancelled:
                news.append((row, output.generated_tokens[running.taken :], last))
                running.taken = running.seen
            if last:
                del self._running[name]
            self._failures = 0
        sequences.accept(news, self._ends, self._decode)
        self._cancel()
        if not (latest and self._running) and not self.manager.is_running():
            self._end(self.manager.background_thread_status.fatal_error)

    def _forget(self, name: str, error: str) -> None:
        failed = Internal(f"torch failed while generating: {error}")
        sequences.fail([self._running.pop(name).row], failed)

    def _cancel(self) -> None:
        """Removes requests that met a stop string or lost their caller from the manager, as soon as that is safe."""
        for name, running in list(self._running.items()):
            row = running.row
            if (row.ended or row.delivery.cancelled) and (
                not self._overlapping or inside_page(running.seen, len(row.ids) + running.seen)
            ):
                self.manager.cancel_request(name)
                del self._running[name]

    def _end(self, error: BaseException | None) -> None:
        """Fails the running requests and frees the manager; the next request opens another, smaller if memory ran
        out."""
        manager, self.manager = self.manager, None
        failed = error if isinstance(error, Internal) else Internal(f"torch failed while generating: {_said(error)}")
        sequences.fail([running.row for running in self._running.values()], failed)
        self._running.clear()
        if manager is None:
            return
        self._past_steps += getattr(manager, "current_batch", 0)
        try:
            torch_paged.end(manager)
        except Exception as late:  # a broken device raises here, too; its requests have their error already
            log.warning("continuous batching of %s requests did not end cleanly: %s", self._name, late)
        if not self._closing:
            self._failures += 1
            log.warning("continuous batching of %s requests failed: %s", self._name, _said(error))
        if error is not None and "out of memory" in str(error).lower():
            self._scale *= SMALLER

    def _left(self) -> list[Row]:
        rows = []
        while not self._inbox.empty():
            row = self._inbox.get()
            if row is not None:
                rows.append(row)
        return rows


def inside_page(answered: int, tokens: int) -> bool:
    """Returns True if a request with `tokens` in its cache, `answered` of them generated, can be cancelled while the
    next step is in flight: that step must not complete a page, or transformers 5.23 looks for the pages of a request
    that it has just forgotten (`CacheAllocator.mark_complete_blocks`), and its thread ends."""
    place = tokens % torch_paged.PAGE_TOKENS
    return answered > 0 and PAGE_MARGIN <= place <= torch_paged.PAGE_TOKENS - PAGE_MARGIN


def _plain(sampling: Sampling) -> bool:
    """Returns True if a manager can serve it."""
    penalties = (sampling.frequency_penalty, sampling.presence_penalty, sampling.repetition_penalty - 1.0)
    return (
        not any(penalties)
        and (sampling.temperature == 0 or (sampling.seed is None and sampling.min_p == 0))
        and (sampling.schema is None)
    )


def _no_room(tokens: int, room: int) -> TooLong:
    return TooLong(
        f"the prompt has {tokens} tokens, and the KV cache holds {room}. "
        f"Next: a larger hardware.kv_cache_gib, or a shorter prompt"
    )


def _said(error: BaseException | None) -> str:
    return "its thread ended" if error is None else f"{type(error).__name__}: {error}"
