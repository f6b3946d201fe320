"""Texts of all callers on one encoder, with a model of ours that is quick to say what it was given."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from engine.runtimes.embedding.encoder import SentenceEncoder
from engine.runtimes.embedding.model import SentenceModel
from engine.runtimes.generation.prompts import INLINE_CHARACTERS
from tests.runtimes.tiny_models import bert_tokenizer

pytest.importorskip("transformers")

MODEL = SentenceModel({"hidden_size": 2}, "mean", False, 64)


class Sums:
    """The sum of a text's tokens, and how many they are. More than `most_texts` at once do not fit its memory."""

    dtype = np.int64
    max_tokens = 64

    def __init__(self, threads: int = 1, most_texts: int = 100) -> None:
        self.threads = threads
        self.calls: list[tuple[int, int]] = []
        self._most_texts = most_texts

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if len(ids) > self._most_texts:
            raise RuntimeError("out of memory")
        self.calls.append(ids.shape)
        return np.stack([(ids * mask).sum(1), mask.sum(1)], 1).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert_tokenizer(tmp_path)
    return tmp_path


TEXTS = [" ".join("abcdefgh"[: 1 + index % 8]) + " hello" * (index % 5) for index in range(60)]


@pytest.mark.parametrize("threads", [1, 3])
async def test_every_caller_gets_its_own_vectors_in_order(folder: Path, threads: int) -> None:
    encoder = SentenceEncoder(folder, MODEL, Sums(threads))
    try:
        alone = [await encoder.embed([text]) for text in TEXTS]
        together = await encoder.embed(TEXTS)
        parts = await asyncio.gather(*(encoder.embed(TEXTS[start : start + 7]) for start in range(0, 60, 7)))
    finally:
        encoder.close()
    wanted = np.concatenate([found.vectors for found in alone])
    assert len({tuple(vector) for vector in wanted}) > 20
    assert np.array_equal(together.vectors, wanted)
    assert np.array_equal(np.concatenate([found.vectors for found in parts]), wanted)
    assert together.tokens == [tokens for found in alone for tokens in found.tokens] == wanted[:, 1].tolist()


async def test_no_call_has_more_tokens_than_it_may_and_one_alone_fills_the_threads(folder: Path) -> None:
    model = Sums(threads=2)
    encoder = SentenceEncoder(folder, MODEL, model)
    try:
        await encoder.embed(["a b c d e f"] * 16)
    finally:
        encoder.close()
    assert sum(texts for texts, _ in model.calls) == 16
    assert all(texts * tokens <= 64 for texts, tokens in model.calls)


async def test_texts_that_are_long_to_tokenise_come_out_the_same(folder: Path) -> None:
    encoder = SentenceEncoder(folder, MODEL, Sums())
    many = ["a b c"] * (INLINE_CHARACTERS // 4)
    try:
        found = await encoder.embed(many)
        one = await encoder.embed(["a b c"])
    finally:
        encoder.close()
    assert np.array_equal(found.vectors, np.repeat(one.vectors, len(many), 0))


async def test_what_does_not_fit_the_memory_is_halved_until_it_does(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Sums(most_texts=3)
    encoder = SentenceEncoder(folder, MODEL, model)
    try:
        found = await encoder.embed(["a", "b", "c", "d", "e", "f", "g", "h"])
    finally:
        encoder.close()
    assert len(set(found.vectors[:, 0].tolist())) == 8
    assert [texts for texts, _ in model.calls] == [2, 2, 2, 2]
    assert "8 texts at once do not fit the memory" in caplog.text


async def test_one_text_that_does_not_fit_the_memory_fails_and_says_so(folder: Path) -> None:
    encoder = SentenceEncoder(folder, MODEL, Sums(most_texts=0))
    try:
        with pytest.raises(RuntimeError, match="not enough memory for one text of 3 tokens"):
            await encoder.embed(["a", "b"])
    finally:
        encoder.close()
