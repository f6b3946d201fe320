"""Sentence embeddings with torch: buckets of similar length, native arithmetic, one thread that owns the model."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from engine.runtime import Embeddings
from engine.runtimes.sentence_model import Bucket, SentenceModel, Texts, buckets, padded, read_texts, tokenizer
from engine.runtimes.torch_loading import TorchHardware, device, pretrained

BUCKET_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Tokens in one forward pass at most, with padding."""


class Encoder:
    """A loaded sentence encoder. Making one blocks. Raises OSError, ValueError or RuntimeError."""

    def __init__(self, folder: Path, settings: SentenceModel, hardware: TorchHardware) -> None:
        self._settings = settings
        self._tokenizer = tokenizer(folder, settings.max_tokens)
        self._model: Any = pretrained(AutoModel, folder, hardware)
        self._device = device(hardware)
        self._hidden: int = settings.config["hidden_size"]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="torch-encoder")

    async def embed(self, texts: list[str]) -> Embeddings:
        """One vector for each text; the buckets of all callers take turns."""
        loop = asyncio.get_running_loop()
        read = await asyncio.to_thread(read_texts, self._tokenizer, texts)
        vectors = np.empty((len(texts), self._hidden), np.float32)
        lengths = [len(ids) for ids in read.ids]
        jobs = (
            loop.run_in_executor(self._pool, self._encode, read, bucket, vectors)
            for bucket in buckets(lengths, BUCKET_TOKENS[self._device.type])
        )
        await asyncio.gather(*jobs)
        return Embeddings(vectors, lengths, read.cut)

    def close(self) -> None:
        """Waits for what is under way and frees the model. Blocks."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._model = None

    def _encode(self, texts: Texts, bucket: Bucket, vectors: np.ndarray) -> None:
        with torch.inference_mode():
            vectors[bucket.rows] = self._forward(texts, bucket)

    def _forward(self, texts: Texts, bucket: Bucket) -> Any:
        ids, mask = padded(texts, bucket, np.int64)
        tokens = torch.from_numpy(ids).to(self._device)
        # Without padding no mask is needed, and attention takes its fastest way.
        seen = None if mask.all() else torch.from_numpy(mask).to(self._device)
        hidden = self._model(input_ids=tokens, attention_mask=seen).last_hidden_state.float()
        pooled = self._pooled(hidden, seen)
        if self._settings.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return pooled.cpu().numpy()

    def _pooled(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        if self._settings.pooling == "cls":
            return hidden[:, 0]
        if self._settings.pooling == "max":
            return (hidden if seen is None else hidden.masked_fill(seen.unsqueeze(2) == 0, -1e9)).amax(1)
        if seen is None:
            return hidden.mean(1)
        weight = seen.unsqueeze(2).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)
