"""Text in and vectors out: the shared part of the runtimes' sentence encoders."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.runtimes.batcher import Batcher, is_out_of_memory
from engine.runtimes.embedding.model import Bucket, SentenceModel, Texts, buckets, padded, read_texts, tokenizer
from engine.runtimes.generation.prompts import INLINE_CHARACTERS
from engine.tasks.local_model import Embeddings

log = logging.getLogger("engine.runtimes")


class Forward(Protocol):
    """A loaded model. `threads` of them may call it at once."""

    dtype: Any
    """The type of the tokens and the mask."""
    max_tokens: int
    """Tokens in one call, with padding."""
    threads: int

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns a pooled vector a text, (texts, hidden), from tokens and their mask, both (texts, longest).
        Blocks."""
        ...


class SentenceEncoder:
    """Texts of all callers in batches of similar length, on the threads that the model computes on."""

    def __init__(self, folder: Path, model: SentenceModel, forward: Forward) -> None:
        """Raises SetupError."""
        self._tokenizer = tokenizer(folder, model.max_tokens)
        self._model = model
        self._width: int = model.head.width or model.config["hidden_size"]
        self._forward: Forward | None = forward
        most = self._max_tokens = forward.max_tokens
        self._threads = forward.threads
        self._batches = Batcher(self._run, "encoder", max_rows=most, max_tokens=most, threads=forward.threads)
        self._callers = 0

    async def embed(self, texts: list[str]) -> Embeddings:
        """Returns one vector for each text. Raises RuntimeError."""
        self._callers += 1
        texts = self._model.prepared(texts)
        try:
            if sum(map(len, texts)) < INLINE_CHARACTERS:
                read = read_texts(self._tokenizer, texts)
            else:
                read = await asyncio.to_thread(read_texts, self._tokenizer, texts)
            vectors = np.empty((len(texts), self._width), np.float32)
            lengths = [len(ids) for ids in read.ids]
            # Several callers share the threads; only a single caller is split to fill them all.
            parts = max(1, self._threads // self._callers)
            made = buckets(lengths, self._max_tokens, parts)
            await asyncio.gather(*(self._encode(read, bucket, vectors) for bucket in made))
        finally:
            self._callers -= 1
        return Embeddings(vectors, lengths, read.cut)

    def close(self) -> None:
        """Waits for the batches in flight and frees the model; waiting texts fail. Blocks."""
        self._batches.close()
        self._forward = None

    async def _encode(self, read: Texts, bucket: Bucket, vectors: np.ndarray) -> None:
        """Stores the vectors of the bucket's texts; halves a bucket that does not fit the memory."""
        try:
            found = await self._batches.compute(
                [read.ids[row] for row in bucket.rows], "texts", bucket.length, len(bucket.rows)
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(bucket.rows) == 1:
                raise RuntimeError(f"there is not enough memory for one text of {bucket.length} tokens") from error
            log.warning("encoder: %d texts at once do not fit the memory; each half goes alone", len(bucket.rows))
            middle = len(bucket.rows) // 2
            for rows in (bucket.rows[:middle], bucket.rows[middle:]):
                await self._encode(read, Bucket(rows, max(len(read.ids[row]) for row in rows)), vectors)
        else:
            vectors[bucket.rows] = found

    def _run(self, parts: list[list[list[int]]]) -> list[np.ndarray]:
        """Returns the vectors of each part from the tokens of its texts."""
        forward = self._forward
        assert forward is not None
        vectors = forward(*padded([ids for part in parts for ids in part], forward.dtype))
        ends = np.cumsum([len(part) for part in parts])
        return np.split(self._model.head(vectors), ends[:-1])
