"""Sentence embeddings with a real model, the same on every runtime."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

TEXTS = [
    "The cat sits on the mat.",
    "A",
    "How much is a kilogram of tea in the market of Shanghai, and who sets its price over the year?",
    "naïve café, 世界, 🙂",
    "x " * 100,
    *(f"sentence {n} about the price of {n} goods " + "and more " * (n % 7) for n in range(27)),
]


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> np.ndarray:
    """What transformers says in float32, one text at a time, pooled and normalised here."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    model = AutoModel.from_pretrained(minilm_folder, dtype=torch.float32).eval()
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).last_hidden_state
        rows.append(torch.nn.functional.normalize(hidden.mean(1), dim=1)[0].numpy())
    return np.stack(rows)


async def test_vectors_agree_with_float32(encoder: Any, reference: np.ndarray) -> None:
    found = await encoder.embed(TEXTS)
    assert found.vectors.shape == reference.shape
    assert found.vectors.dtype == np.float32
    assert (found.vectors * reference).sum(1).min() >= 0.9995
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-3)


async def test_many_callers_get_their_own_vectors(encoder: Any, reference: np.ndarray) -> None:
    found = await asyncio.gather(*(encoder.embed([text]) for text in TEXTS))
    own = np.concatenate([one.vectors for one in found])
    assert (own * reference).sum(1).min() >= 0.9995


async def test_the_nearest_sentence_is_the_one_that_means_the_same(encoder: Any) -> None:
    documents = ["The stock market fell today.", "A recipe for apple pie.", "Dogs are loyal animals.", "It will rain."]
    queries = [
        "Shares lost value.",
        "How do I bake a cake with fruit?",
        "Puppies love people.",
        "The weather gets wet.",
    ]
    found = (await encoder.embed(documents + queries)).vectors
    scores = found[4:] @ found[:4].T
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]


async def test_a_long_text_is_cut_and_said_to_be(encoder: Any) -> None:
    found = await encoder.embed(["short", "word " * 400])
    assert found.cut == [1]
    assert found.tokens == [3, 256]


async def test_a_cancelled_caller_does_not_disturb_the_others(encoder: Any) -> None:
    leaver = asyncio.create_task(encoder.embed(["a long text " * 20] * 64))
    stayer = asyncio.create_task(encoder.embed(["stay"]))
    await asyncio.sleep(0)
    leaver.cancel()
    assert (await stayer).vectors.shape == (1, 384)
    with pytest.raises(asyncio.CancelledError):
        await leaver
