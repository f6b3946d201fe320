"""Generations in flight in torch: the state of each answer, and the pieces that new tokens become for its caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.core.errors import InferenceError
from engine.runtimes.generation.delivery import Delivery, deliver
from engine.runtimes.generation.detokenizer import Decode, Detokenizer, advance
from engine.tasks.local_model import Sampling, TextDelta


class Row:
    """One generation, for whichever thread computes it."""

    __slots__ = ("delivery", "ended", "extras", "generated", "ids", "sampling", "text", "unsent")

    def __init__(self, ids: list[int], sampling: Sampling, delivery: Delivery, extras: dict[str, Any] | None) -> None:
        self.ids = ids
        self.extras = extras
        self.sampling = sampling
        self.delivery = delivery
        self.text = Detokenizer(sampling.stop)
        self.generated = 0
        self.unsent = 0
        """Tokens since the last piece."""
        self.ended = False
        """True: the last piece, or an error, is on its way."""

    @property
    def said(self) -> bool:
        """Returns True if part of the answer has gone to the caller."""
        return self.generated > self.unsent

    def restart(self) -> None:
        """Drops the generated tokens, none of which has gone to the caller."""
        self.text = Detokenizer(self.sampling.stop)
        self.generated = self.unsent = 0


def accept(news: Iterable[tuple[Row, Sequence[int], bool]], ends: frozenset[int], decode: Decode) -> None:
    """Takes each row's new tokens and delivers their text. The flag marks the last tokens.

    `ends` are the tokens that end an answer; they count, but `decode` leaves them out.
    """
    rows: list[Row] = []
    reasons: list[str | None] = []
    for row, tokens, last in news:
        row.generated += len(tokens)
        row.unsent += len(tokens)
        row.text.push(tokens)
        length = "length" if last or row.generated >= row.sampling.max_tokens else None
        reason = "stop" if tokens and tokens[-1] in ends else length
        if reason or not row.delivery.whole:
            rows.append(row)
            reasons.append(reason)
    fresh = advance([row.text for row in rows], [reason is not None for reason in reasons], decode)
    items: list[tuple[Delivery, TextDelta | InferenceError]] = []
    for row, reason, text in zip(rows, reasons, fresh, strict=True):
        reason = "stop" if row.text.stopped else reason
        items.append((row.delivery, TextDelta(text, row.unsent, reason)))
        row.unsent = 0
        row.ended = reason is not None
    deliver(items)


def fail(rows: Iterable[Row], error: InferenceError) -> None:
    """Ends the rows that are still running with the error."""
    failed: list[tuple[Delivery, TextDelta | InferenceError]] = []
    for row in rows:
        if not row.ended:
            row.ended = True
            failed.append((row.delivery, error))
    deliver(failed)


def ends_of(model: Any) -> frozenset[int]:
    """Returns the tokens that end a model's answers."""
    eos = model.generation_config.eos_token_id
    return frozenset(token for token in (eos if isinstance(eos, list) else [eos]) if token is not None)


def decoder(tokenizer: Any) -> Decode:
    """Returns the text of many lists of tokens in one call of the tokenizer, without special tokens."""

    def decode(windows: list[list[int]]) -> list[str]:
        decoded: list[str] = tokenizer.backend_tokenizer.decode_batch(windows, skip_special_tokens=True)
        return decoded

    return decode
