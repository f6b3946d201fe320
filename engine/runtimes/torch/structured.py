"""JSON that follows a schema, for transformers' generation: llguidance selects the tokens that may come next.

A grammar's state ("matcher") belongs to one answer. It allows the end of the text exactly where the JSON is complete.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from engine.core.errors import InferenceError, Internal, InvalidRequest, SetupError
from engine.tasks.structured import SCHEMA

KEPT = 64
"""Grammars kept for later requests with the same schema."""
_WHITESPACE = r"\x20|\x0A[\x20\x09]{0,40}"
"""A space, or a new line with its indent: small models that may write any whitespace write nothing else."""


class Grammars:
    """The grammars of one model. `ends` are the tokens that end its answers."""

    def __init__(self, tokenizer: Any, ends: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = sorted(ends)
        self._vocabulary: Any = None
        """Returns llguidance's form of the tokenizer: it takes half a second, so it is made for the first schema."""
        self._made: OrderedDict[str, Any] = OrderedDict()
        self._gate = threading.Lock()

    def fresh(self, schema: str) -> Any:
        """Returns a matcher at its start. Raises InvalidRequest for a schema that makes no grammar, SetupError without
        llguidance."""
        with self._gate:
            if schema not in self._made:
                self._made[schema] = self._make(schema)
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(schema)
            return self._made[schema].deep_copy()

    def _make(self, schema: str) -> Any:
        try:
            import llguidance.hf
        except ImportError as error:
            raise SetupError(
                'a response_format with JSON needs llguidance. Next: pip install "ipfs-accelerate[structured]"'
            ) from error
        if self._vocabulary is None:
            try:
                self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer, eos_token=self._ends or None)
            except ValueError as error:
                raise Internal(f"llguidance can't read this model's tokenizer: {error}") from error
        written = llguidance.LLMatcher.grammar_from_json_schema(schema, {"whitespace_pattern": _WHITESPACE})
        matcher = llguidance.LLMatcher(self._vocabulary, written, log_level=0)
        if matcher.is_error():
            raise InvalidRequest(f"{SCHEMA}: no grammar can be made of it: {matcher.get_error()}")
        return matcher


class SchemaMask(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Forbids the tokens with which a row's answer would leave its schema.

    `matchers` has one for each row that has a schema. `ended(row)` is true if nothing more is needed of a row,
    `failed(row, error)` is called when a grammar becomes too complex on the way.
    """

    def __init__(
        self,
        matchers: dict[int, Any],
        prompt_length: int,
        ended: Callable[[int], bool],
        failed: Callable[[int, InferenceError], None],
    ) -> None:
        self._matchers = matchers
        self._read = prompt_length
        self._ended = ended
        self._failed = failed

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids` is (rows, length), `scores` (rows, vocabulary)."""
        self._matchers = {row: matcher for row, matcher in self._matchers.items() if not self._ended(row)}
        for row, matcher in self._matchers.items():
            matcher.consume_tokens(input_ids[row, self._read :].tolist())
            bits = matcher.compute_bitmask()
            if matcher.is_error():
                self._failed(row, InvalidRequest(f"{SCHEMA}: {matcher.get_error()}"))
            else:
                allowed = _allowed(bits, scores.shape[1])
                scores[row].masked_fill_(~allowed.to(scores.device), float("-inf"))
        self._read = input_ids.shape[1]
        return scores


def _allowed(bits: bytes, width: int) -> torch.Tensor:
    """Returns which of `width` tokens may come next. A model may have more logits than tokens; the rest is
    forbidden."""
    allowed = np.zeros(width, np.bool_)
    known = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:width]
    allowed[: len(known)] = known
    return torch.from_numpy(allowed)
