"""Sentence embeddings with torch: native arithmetic, one thread that owns the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from engine.runtimes.embedding.model import SentenceModel
from engine.runtimes.torch.loading import TorchHardware, device, pretrained

MAX_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Tokens in one forward pass, with padding."""


class TorchForward:
    """A loaded sentence encoder. Making one blocks. Raises OSError, ValueError or RuntimeError."""

    dtype = np.int64
    threads = 1

    def __init__(self, folder: Path, settings: SentenceModel, hardware: TorchHardware) -> None:
        self._settings = settings
        self._model: Any = pretrained(AutoModel, folder, hardware, unused=("pooler.",))
        self._device = device(hardware)
        self.max_tokens = MAX_TOKENS[self._device.type]

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns a vector a text."""
        with torch.inference_mode():
            return self._vectors(ids, mask)

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(ids).to(self._device)
        # Without padding no mask is needed, and attention takes its fastest way.
        seen = None if mask.all() else torch.from_numpy(mask).to(self._device)
        hidden = self._model(input_ids=tokens, attention_mask=seen).last_hidden_state.float()
        pooled = self._pooled(hidden, seen)
        if self._settings.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        vectors: np.ndarray = pooled.cpu().numpy()
        return vectors

    def _pooled(self, hidden: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        if self._settings.pooling == "cls":
            return hidden[:, 0]
        if self._settings.pooling == "max":
            return (hidden if seen is None else hidden.masked_fill(seen.unsqueeze(2) == 0, -1e9)).amax(1)
        if seen is None:
            return hidden.mean(1)
        weight = seen.unsqueeze(2).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)
