"""A batch of generations that the memory is too small for, on torch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import Internal
from engine.runtimes.generation.delivery import Delivery
from engine.tasks.local_model import Sampling
from tests.runtimes.tiny_models import causal

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

PROMPTS = [[5, 9, 20 + index] for index in range(6)]


class Greedy(transformers.LlamaForCausalLM):  # type: ignore[misc,name-defined]
    """Wants more memory than there is for more than two rows, from the n-th step of a batch on.

    Its first batch begins when `all_are_here` is set, so that what waits behind that batch does not depend on speed.
    """

    from_step = 1

    def forward(self, input_ids: Any, past_key_values: Any = None, **inputs: Any) -> Any:
        assert self.all_are_here.wait(60)
        done = past_key_values.get_seq_length()
        step = 1 if done == 0 else done - len(PROMPTS[0]) + 2
        if len(input_ids) > 2 and step >= self.from_step:
            torch.empty(2**61, dtype=torch.uint8)
        return super().forward(input_ids, past_key_values=past_key_values, **inputs)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    causal(tmp_path, "Llama", num_key_value_heads=2)
    made = Greedy.from_pretrained(tmp_path).eval()
    made.all_are_here = threading.Event()
    made.generation_config.eos_token_id = None
    made.generation_config.pad_token_id = 0
    return made


@pytest.fixture
def generator(model: Any, tmp_path: Path) -> Iterator[Any]:
    from engine.runtimes.torch.static_batches import StaticGenerator

    made = StaticGenerator(model, transformers.AutoTokenizer.from_pretrained(tmp_path), max_sequences=8, seed=0)
    yield made
    made.close()


async def answers(model: Any, generator: Any, prompts: list[list[int]], whole: bool = True) -> list[str | Internal]:
    """What each prompt gets, asked for at the same time."""

    async def text(delivery: Delivery) -> str:
        return "".join([piece.text async for piece in delivery])

    deliveries = [Delivery(whole) for _ in prompts]
    for ids, delivery in zip(prompts, deliveries, strict=True):
        generator.submit(ids, Sampling(max_tokens=8, temperature=0.0), delivery)
    model.all_are_here.set()
    return await asyncio.gather(*map(text, deliveries), return_exceptions=True)  # type: ignore[return-value]


@pytest.mark.parametrize("step", [1, 5])
async def test_a_batch_that_does_not_fit_is_generated_in_parts(
    model: Any, generator: Any, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    alone = [(await answers(model, generator, [ids]))[0] for ids in PROMPTS]
    model.all_are_here.clear()
    model.from_step = step
    assert await answers(model, generator, PROMPTS) == alone
    assert len(set(alone)) > 1
    assert "sequences at once do not fit the memory" in caplog.text


async def test_who_has_heard_some_of_the_answer_gets_the_error(model: Any, generator: Any) -> None:
    model.from_step = 5
    found = await answers(model, generator, PROMPTS, whole=False)
    failed = [each for each in found if isinstance(each, Internal)]
    assert len(failed) >= 3
    assert "can't allocate memory" in str(failed[0])
    assert isinstance((await answers(model, generator, PROMPTS[:1]))[0], str)
