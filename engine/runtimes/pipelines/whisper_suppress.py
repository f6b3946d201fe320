"""Suppresses tokens that Whisper never says, by their index.

transformers' own processors search the list of those tokens for every token of the vocabulary, at every step, also for
the tokens of the first step: on a CPU that takes longer than half of a small Whisper's step.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)


class _Suppress(SuppressTokensLogitsProcessor):  # type: ignore[misc]  # transformers has no types
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return _impossible(scores, self.suppress_tokens)


class _SuppressAtBegin(SuppressTokensAtBeginLogitsProcessor):  # type: ignore[misc]
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[-1] != self.begin_index:
            return scores
        return _impossible(scores, self.begin_suppress_tokens)


def _impossible(scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    known = tokens[(tokens >= 0) & (tokens < scores.shape[-1])]
    return scores.index_fill(1, known.long().to(scores.device), -torch.inf)  # an empty list is of floats


_QUICK = {SuppressTokensLogitsProcessor: _Suppress, SuppressTokensAtBeginLogitsProcessor: _SuppressAtBegin}


def quickened(model: Any) -> Any:
    """Makes the same Whisper with a `generate` that uses the processors above instead of transformers'."""
    own = type(model)._retrieve_logit_processors

    def retrieve(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = own(self, *args, **kwargs)
        for processor in found or ():
            processor.__class__ = _QUICK.get(type(processor), type(processor))
        return found

    model._retrieve_logit_processors = MethodType(retrieve, model)
    return model
