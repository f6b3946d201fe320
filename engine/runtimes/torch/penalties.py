"""Frequency and presence penalties for transformers, which has only the repetition penalty."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor


class CountPenalties(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Lowers the logits of tokens that the answer already has.

    Formula of OpenAI's API reference ("Advanced usage, parameter details"):
    logit -= count * frequency_penalty + (count > 0) * presence_penalty. The prompt is not counted.
    """

    def __init__(self, prompt_length: int, frequency: float, presence: float) -> None:
        self._prompt_length = prompt_length
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids` is (rows, length), `scores` (rows, vocabulary)."""
        answer = input_ids[:, self._prompt_length :]
        counts = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - counts * self._frequency - (counts > 0) * self._presence
