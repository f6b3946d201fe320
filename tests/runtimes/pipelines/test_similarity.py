"""Sentence similarity with real weights: which of some texts belongs to a question, on every hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from tests.runtimes.pipelines.test_pipelines import spec

pytestmark = pytest.mark.slow
LABELLED = {
    "How do I bake bread?": "Mix flour, water, salt and yeast, let the dough rise, and put it into the oven.",
    "Which planet is the largest?": "Jupiter has more mass than all other planets of the solar system together.",
    "My computer does not start.": "Check the power cable first, and then whether the fan of the laptop turns.",
    "Where do penguins live?": "Most of these birds, which can't fly, are found on the coasts of Antarctica.",
    "What is inflation?": "When prices rise from year to year, the same money buys less.",
    "Who wrote Hamlet?": "The tragedy about the prince of Denmark is by William Shakespeare.",
}
"""A question, and the text that answers it."""


async def likeness(folder: Path, hardware: str, *words: str) -> list[list[float]]:
    found = []
    async with Engine(spec(folder, "sentence-similarity", *words, hardware=hardware)) as engine:
        for question in LABELLED:
            inputs = {"source_sentence": question, "sentences": list(LABELLED.values())}
            result = await engine.submit(Request("sentence-similarity", {"inputs": inputs}))
            assert result.body is not None, result.error
            assert result.usage is not None
            assert result.usage.input_tokens > 60
            found.append(result.body["outputs"])
    return found


async def test_every_question_finds_its_text_on_every_hardware(minilm_folder: Path) -> None:
    on_torch = await likeness(minilm_folder, "cpu", "hardware.dtype=float32")
    on_openvino = await likeness(minilm_folder, "openvino", "hardware.precision=f32")
    for found in (on_torch, on_openvino):
        assert [max(range(6), key=row.__getitem__) for row in found] == [0, 1, 2, 3, 4, 5]
    flat = [number for row in on_torch for number in row]
    assert [number for row in on_openvino for number in row] == pytest.approx(flat, abs=1e-4)
    ranks = [[sorted(range(6), key=row.__getitem__) for row in found] for found in (on_torch, on_openvino)]
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": "a"}, "body.inputs: expected an object with source_sentence and sentences"),
        ({"inputs": {"source_sentence": "a"}}, "body.inputs.sentences: expected a list"),
        ({"inputs": {"source_sentence": "a", "sentences": ["b", 3]}}, r"body.inputs.sentences\[1\]: expected text"),
        ({"inputs": {"source_sentence": "", "sentences": ["b"]}}, "body.inputs.source_sentence: expected text"),
    ],
)
async def test_what_can_not_be_compared_is_refused_with_its_place(
    body: dict[str, Any], said: str, minilm_folder: Path
) -> None:
    async with Engine(spec(minilm_folder, "sentence-similarity")) as engine:
        result = await engine.submit(Request("sentence-similarity", body))
    assert result.error is not None
    with pytest.raises(type(result.error), match=said):
        raise result.error
