"""A workload: a row for each word of the command line, `workload=words workload.words=[red,green]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from engine.schemas.workload import CommonWorkloadSpec
from engine.workloads.rows import Form, Record
from engine.workloads.source import Source


class WordsSpec(CommonWorkloadSpec):
    """The knobs at `workload`."""

    kind: Literal["words"]
    words: tuple[str, ...] = ("one", "two")
    """A row each."""


def open_words(spec: WordsSpec, form: Form, seed: int) -> Source:
    """The rows, read again from the first one at each iteration."""

    def records() -> Iterator[Record]:
        for number, word in enumerate(spec.words, 1):
            yield Record(number, f"Say {word}.")

    return Source("words", "words", records, form, spec.limit)


open_words.spec = WordsSpec  # type: ignore[attr-defined]
