"""Generation with torch and transformers: one thread, static batches of requests with the same sampling.

All requests that wait when a batch ends are generated together, padded on the left; each row streams, stops and is
cancelled alone. A batch that does not fit the memory is generated again in halves.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from engine.core.errors import Internal
from engine.runtimes.batcher import is_out_of_memory
from engine.runtimes.generation import sequences
from engine.runtimes.generation.delivery import Delivery, deliver
from engine.runtimes.generation.sequences import Row
from engine.runtimes.torch.penalties import CountPenalties
from engine.runtimes.torch.structured import Grammars, SchemaMask
from engine.tasks.local_model import Sampling

log = logging.getLogger("engine.runtimes")


class StaticGenerator:
    """The thread that runs the model. `steps` counts its forward passes, for measurements."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_sequences: int,
        seed: int,
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`alone` is entered for a request with a seed: no other may draw from torch's generator meanwhile."""
        self._model = model
        self._decode = sequences.decoder(tokenizer)
        self._max_sequences = max_sequences
        self._alone = alone
        self._rng = random.Random(seed)
        self._inbox: SimpleQueue[Row | None] = SimpleQueue()
        self._waiting: list[Row] = []
        self._gate = threading.Lock()
        self._closing = False
        self.steps = 0
        self._ends = sequences.ends_of(model)
        self._grammars = Grammars(tokenizer, self._ends)
        self._thread = threading.Thread(target=self._run, name="torch-generation", daemon=True)
        self._thread.start()

    def check(self, schema: str) -> None:
        """Makes the schema's grammar. Blocks. Raises InvalidRequest, and SetupError without llguidance."""
        self._grammars.fresh(schema)

    def submit(
        self, ids: list[int], sampling: Sampling, delivery: Delivery, extras: dict[str, Any] | None = None
    ) -> None:
        """Queues a generation. One with `extras`, such as the tensors of images, is computed alone."""
        with self._gate:
            if not self._closing:
                self._inbox.put(Row(ids, sampling, delivery, extras))
                return
        deliver([(delivery, Internal("the model was closed while a request was on its way"))])

    def close(self) -> None:
        """Stops every generation and waits for the thread. Blocks."""
        with self._gate:
            self._closing = True
        self._inbox.put(None)
        self._thread.join()
        self._model = None

    def _run(self) -> None:
        while not self._closing:
            batch = self._next_batch()
            if batch:
                self._compute(batch)
        sequences.fail(self._waiting, Internal("the model was closed before it answered"))

    def _next_batch(self) -> list[Row]:
        """Takes the longest-waiting request and those that can be generated with it."""
        self._admit(block=not self._waiting)
        self._waiting = [row for row in self._waiting if not row.delivery.cancelled]
        if not self._waiting:
            return []
        kind = _kind(self._waiting[0].sampling)
        first = self._waiting[0]
        batch = [row for row in self._waiting if row.extras is None and _kind(row.sampling) == kind]
        batch = batch[: self._max_sequences] if first.extras is None else [first]
        if kind[-1] is not None:  # a seed promises the same answer again, whatever else is waiting
            batch = batch[:1]
        self._waiting = [row for row in self._waiting if row not in batch]
        return batch

    def _admit(self, block: bool) -> None:
        while True:
            try:
                row = self._inbox.get(block=block)
            except Empty:
                return
            block = False
            if row is not None:
                self._waiting.append(row)
            elif self._closing:
                return

    def _compute(self, batch: list[Row]) -> None:
        """Generates; raises nothing. Rows without delivered text begin again if the memory was too small."""
        try:
            with nullcontext() if batch[0].sampling.seed is None else self._alone():
                self._generate(batch)
            return
        except Exception as error:  # any error of the model is these requests' failure; no request may hang
            silent = [row for row in batch if not row.ended and not row.said]
            again = silent if is_out_of_memory(error) and len(batch) > 1 else []
            failed = Internal(f"torch failed while generating: {type(error).__name__}: {error}")
        sequences.fail([row for row in batch if row not in again], failed)
        if not again:
            return
        log.warning("generation: %d sequences at once do not fit the memory; half as many go together", len(batch))
        for row in again:
            row.restart()
        most = len(batch) // 2
        for start in range(0, len(again), most):
            self._compute(again[start : start + most])

    def _generate(self, batch: list[Row]) -> None:
        sampling = batch[0].sampling
        device = self._model.device
        longest = max(len(row.ids) for row in batch)
        pad = self._model.generation_config.pad_token_id or next(iter(self._ends), 0)
        ids = torch.full((len(batch), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(batch):
            ids[place, longest - len(row.ids) :] = torch.tensor(row.ids)
            mask[place, longest - len(row.ids) :] = 1
        torch.manual_seed(self._rng.getrandbits(63) if sampling.seed is None else sampling.seed)
        stream = _Stream(self, batch)
        with torch.inference_mode():
            self._model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                pad_token_id=pad,
                max_new_tokens=max(row.sampling.max_tokens for row in batch),
                streamer=stream,
                stopping_criteria=StoppingCriteriaList([_Ended(self, batch)]),
                **{name: value.to(device) for name, value in (batch[0].extras or {}).items()},
                **_options(sampling),
                logits_processor=LogitsProcessorList(self._processors(batch, longest)),
            )

    def _processors(self, batch: list[Row], prompt_length: int) -> list[LogitsProcessor]:
        """Returns processors for options that transformers lacks; schemas come last, after the penalties."""
        processors: list[LogitsProcessor] = []
        sampling = batch[0].sampling
        if sampling.frequency_penalty or sampling.presence_penalty:
            processors.append(CountPenalties(prompt_length, sampling.frequency_penalty, sampling.presence_penalty))
        schemas = {place: row.sampling.schema for place, row in enumerate(batch) if row.sampling.schema is not None}
        if schemas:
            matchers = {place: self._grammars.fresh(schema) for place, schema in schemas.items()}
            processors.append(
                SchemaMask(
                    matchers,
                    prompt_length,
                    ended=lambda place: self.ended(batch[place]),
                    failed=lambda place, error: sequences.fail([batch[place]], error),
                )
            )
        return processors

    def accept(self, batch: list[Row], tokens: list[int]) -> None:
        """Takes one step's token of each row and delivers the new text."""
        self.steps += 1
        news = [(row, (token,), False) for row, token in zip(batch, tokens, strict=True) if not row.ended]
        sequences.accept(news, self._ends, self._decode)

    def ended(self, row: Row) -> bool:
        """Returns True if nothing more is needed of this row."""
        return row.ended or row.delivery.cancelled or self._closing


class _Stream(BaseStreamer):  # type: ignore[misc]  # transformers has no types
    """Gets each step's tokens, one a row; transformers calls it with the prompt first."""

    def __init__(self, generator: StaticGenerator, batch: list[Row]) -> None:
        self._generator = generator
        self._batch = batch
        self._prompt = True

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
        else:
            self._generator.accept(self._batch, value.reshape(-1).tolist())

    def end(self) -> None:
        for row in self._batch:
            if not row.ended and not row.delivery.cancelled:
                sequences.fail([row], Internal("torch ended the generation without a reason"))


class _Ended(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    """Ends each row by itself: at its own max_tokens, its stop strings, or when its caller has left."""

    def __init__(self, generator: StaticGenerator, batch: list[Row]) -> None:
        self._generator = generator
        self._batch = batch

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.tensor([self._generator.ended(row) for row in self._batch], device=input_ids.device)


def _kind(sampling: Sampling) -> tuple[Any, ...]:
    """Returns the kind of a request, whose members can share a batch; greedy ones may differ in sampling options."""
    penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if sampling.temperature == 0:
        return (*penalties, 0.0, 1.0, 0, 0.0, None)
    return (*penalties, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.seed)


def _options(sampling: Sampling) -> dict[str, Any]:
    """Returns a sampling by transformers' names; other options are those of the model's generation_config.json."""
    options: dict[str, Any] = {
        "do_sample": sampling.temperature > 0,
        "repetition_penalty": sampling.repetition_penalty,
    }
    if sampling.temperature > 0:
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        if sampling.min_p > 0:
            options["min_p"] = sampling.min_p
    return options
