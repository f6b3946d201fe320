"""Continuous batching with torch, on the CPU with tiny models: what comes out, not how fast."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import Internal, TooLong
from engine.runtimes.generation import generator as generating
from engine.runtimes.generation.prompts import Prompt
from engine.schemas.hardware import CudaHardwareSpec
from engine.tasks.local_model import Sampling, TextDelta
from tests.runtimes.tiny_models import causal

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
continuous = pytest.importorskip("engine.runtimes.torch.continuous")
paged = pytest.importorskip("engine.runtimes.torch.paged")

pytestmark = pytest.mark.slow

CACHE_BYTES = 2**22
GREEDY = Sampling(max_tokens=24, temperature=0.0)
PROMPTS = [[5 + (7 * place + 3 * row) % 60 for place in range(3 + 5 * row)] for row in range(8)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Any]]:
    """A tiny decoder and its tokenizer; each kind is made once."""
    folders: dict[str, Path] = {}

    def of(kind: str, **config: Any) -> tuple[Any, Any]:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            torch.manual_seed(3)
            causal(folders[kind], kind, **config)
        model = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32).eval()
        model.generation_config.eos_token_id = None  # random weights would end at any place
        return model, transformers.AutoTokenizer.from_pretrained(folders[kind])

    return of


@pytest.fixture(scope="module")
def llama(made: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
    return made("Llama")


def opened(loaded: tuple[Any, Any], **options: Any) -> Any:
    return continuous.ContinuousGenerator(
        loaded[0], *loaded, **{"max_sequences": 8, "seed": 0, "cache_bytes": CACHE_BYTES, **options}
    )


@pytest.fixture(scope="module")
def running(llama: tuple[Any, Any]) -> Iterator[Any]:
    """One generator for all tests that do not break it."""
    generator = opened(llama)
    yield generator
    generator.close()


async def ask(generator: Any, prompt: list[int], sampling: Sampling = GREEDY, whole: bool = False) -> list[TextDelta]:
    answer = generating.answer(generator, Prompt(prompt, len(prompt)), sampling, context_length=4096, whole=whole)
    return [piece async for piece in answer]


def stream(generator: Any, prompt: list[int], sampling: Sampling) -> AsyncGenerator[TextDelta, None]:
    return generating.answer(generator, Prompt(prompt, len(prompt)), sampling, context_length=4096, whole=False)


def text(pieces: list[TextDelta]) -> str:
    return "".join(piece.text for piece in pieces)


def expected(loaded: tuple[Any, Any], prompt: list[int], tokens: int = 24) -> str:
    model, tokenizer = loaded
    ids = torch.tensor([prompt])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=0
    )
    return str(tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize(
    ("kind", "config"),
    [("Llama", {}), ("GPT2", {"n_positions": 256}), ("Qwen2", {"num_key_value_heads": 1})],
)
async def test_eight_greedy_answers_at_once_are_those_of_each_alone(
    made: Callable[..., tuple[Any, Any]], kind: str, config: dict[str, Any]
) -> None:
    loaded = made(kind, **config)
    generator = opened(loaded)
    try:
        answers = await asyncio.gather(*(ask(generator, prompt) for prompt in PROMPTS))
    finally:
        await asyncio.to_thread(generator.close)
    assert [text(answer) for answer in answers] == [expected(loaded, prompt) for prompt in PROMPTS]
    assert {answer[-1].finish_reason for answer in answers} == {"length"}
    assert [sum(piece.tokens for piece in answer) for answer in answers] == [24] * 8
    assert generator.steps < 4 * 24  # together: one after the other would be 8 x 24


async def test_a_request_joins_while_another_runs(llama: tuple[Any, Any], running: Any) -> None:
    long = stream(running, PROMPTS[0], replace(GREEDY, max_tokens=300))
    async with aclosing(long):
        await anext(long)
        joined = await ask(running, PROMPTS[1])
        assert text(joined) == expected(llama, PROMPTS[1])
        assert (await anext(long)).finish_reason is None  # it is still under way


async def test_a_whole_answer_is_one_piece(llama: tuple[Any, Any], running: Any) -> None:
    (piece,) = await ask(running, PROMPTS[2], whole=True)
    assert (piece.text, piece.tokens, piece.finish_reason) == (expected(llama, PROMPTS[2]), 24, "length")


async def test_an_answer_ends_before_its_stop_string(llama: tuple[Any, Any], running: Any) -> None:
    full = expected(llama, PROMPTS[3])
    stop = full[10:12]
    answer = await ask(running, PROMPTS[3], replace(GREEDY, stop=(stop,)))
    assert text(answer) == full[: full.index(stop)]
    assert answer[-1].finish_reason == "stop"


async def test_the_models_own_end_ends_an_answer(made: Callable[..., tuple[Any, Any]], llama: tuple[Any, Any]) -> None:
    model, tokenizer = made("Llama")
    full = expected(llama, PROMPTS[3])
    end = tokenizer.convert_tokens_to_ids(full[7])
    model.generation_config.eos_token_id = [2, end]
    generator = opened((model, tokenizer))
    try:
        answer = await ask(generator, PROMPTS[3])
    finally:
        await asyncio.to_thread(generator.close)
    assert answer[-1].finish_reason == "stop"
    assert text(answer) == full[: full.index(full[7]) + 1]


async def test_leaving_takes_a_request_out_of_the_batch(running: Any) -> None:
    answer = stream(running, PROMPTS[0], replace(GREEDY, max_tokens=400))
    async with aclosing(answer):
        await anext(answer)
    await ask(running, PROMPTS[0], replace(GREEDY, max_tokens=2))
    before = running.steps
    await ask(running, PROMPTS[0], replace(GREEDY, max_tokens=2))
    assert running.steps - before <= 6


async def test_leaving_takes_a_whole_answer_out_of_the_batch(running: Any) -> None:
    leaver = asyncio.create_task(ask(running, PROMPTS[0], replace(GREEDY, max_tokens=3000), whole=True))
    before = running.steps
    await ask(running, PROMPTS[1])
    assert running.steps - before > 10
    leaver.cancel()
    await ask(running, PROMPTS[0], replace(GREEDY, max_tokens=2))
    await asyncio.sleep(0.1)
    before = running.steps
    await asyncio.sleep(0.1)
    assert running.steps == before


async def test_a_request_that_is_alone_in_its_choice_of_token_is_greedy(llama: tuple[Any, Any], running: Any) -> None:
    asked = [replace(GREEDY, temperature=t, top_k=k) for t, k in [(1.0, 1), (5.0, 0), (1e-4, 0)]]
    one, hot, cold = await asyncio.gather(*(ask(running, PROMPTS[4], sampling) for sampling in asked))
    assert text(one) == text(cold) == expected(llama, PROMPTS[4])
    assert text(hot) != text(one)


async def test_requests_are_sampled_differently_in_one_batch(running: Any) -> None:
    hot = replace(GREEDY, temperature=3.0)
    answers = [text(answer) for answer in await asyncio.gather(*(ask(running, PROMPTS[5], hot) for _ in range(4)))]
    assert len(set(answers)) == 4


async def test_top_p_leaves_out_unlikely_tokens(llama: tuple[Any, Any], running: Any) -> None:
    narrow = replace(GREEDY, temperature=1.0, top_p=1e-6)
    assert text(await ask(running, PROMPTS[6], narrow)) == expected(llama, PROMPTS[6])


async def test_a_seed_gives_the_same_answer_beside_others_that_are_sampled(running: Any) -> None:
    seeded = replace(GREEDY, temperature=3.0, seed=11)
    alone = text(await ask(running, PROMPTS[1], seeded))
    others = [
        asyncio.create_task(ask(running, prompt, replace(GREEDY, temperature=2.0, max_tokens=60))) for prompt in PROMPTS
    ]
    await asyncio.sleep(0.05)
    assert text(await ask(running, PROMPTS[1], seeded)) == alone
    assert {answer[-1].finish_reason for answer in await asyncio.gather(*others)} == {"length"}


async def test_a_penalty_holds(llama: tuple[Any, Any], running: Any) -> None:
    model, tokenizer = llama
    ids = torch.tensor([PROMPTS[2]])
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=24,
        repetition_penalty=3.0,
        pad_token_id=0,
    )
    answer = await ask(running, PROMPTS[2], replace(GREEDY, repetition_penalty=3.0))
    assert text(answer) == tokenizer.decode(found[0, len(PROMPTS[2]) :], skip_special_tokens=True)


async def test_a_schema_holds(made: Callable[..., tuple[Any, Any]]) -> None:
    pytest.importorskip("llguidance")
    model, tokenizer = made("Llama")
    model.generation_config.eos_token_id = 2
    generator = opened((model, tokenizer))
    try:
        answer = await ask(generator, PROMPTS[1], replace(GREEDY, schema='{"enum": ["ab"]}'))
    finally:
        await asyncio.to_thread(generator.close)
    assert (text(answer), answer[-1].finish_reason) == ('"ab"', "stop")


async def test_static_batches_and_continuous_ones_do_not_disturb_each_other(
    llama: tuple[Any, Any], running: Any
) -> None:
    # transformers keeps whether a model is causal in its config during each step: threads must not share it.
    long = stream(running, PROMPTS[0], replace(GREEDY, max_tokens=400))
    penalty = replace(GREEDY, frequency_penalty=1e-6)
    async with aclosing(long):
        await anext(long)
        answers = await asyncio.gather(*(ask(running, prompt, penalty) for prompt in PROMPTS[1:4]))
    assert [text(answer) for answer in answers] == [expected(llama, prompt) for prompt in PROMPTS[1:4]]
    assert text(await ask(running, PROMPTS[1])) == expected(llama, PROMPTS[1])


async def test_a_prompt_that_the_cache_can_not_hold_is_refused_and_the_others_go_on(llama: tuple[Any, Any]) -> None:
    generator = opened(llama, cache_bytes=paged.page_bytes(llama[0]) * 2)  # a page for each kind
    try:
        with pytest.raises(TooLong, match="kv_cache_gib"):
            await ask(generator, [9] * 300)
        assert text(await ask(generator, PROMPTS[1])) == expected(llama, PROMPTS[1])
    finally:
        await asyncio.to_thread(generator.close)


async def test_an_answer_ends_where_the_cache_does(llama: tuple[Any, Any]) -> None:
    generator = opened(llama, cache_bytes=paged.page_bytes(llama[0]) * 2)
    try:
        answer = await ask(generator, [9] * 250, replace(GREEDY, max_tokens=100))
    finally:
        await asyncio.to_thread(generator.close)
    assert (answer[-1].finish_reason, sum(piece.tokens for piece in answer)) == ("length", 6)


async def test_closing_ends_what_runs_with_an_error(llama: tuple[Any, Any]) -> None:
    generator = opened(llama)
    greedy = replace(GREEDY, max_tokens=2000)
    answers = [stream(generator, PROMPTS[0], sampling) for sampling in (greedy, replace(greedy, temperature=1.0))]
    for answer in answers:
        await anext(answer)
    await asyncio.to_thread(generator.close)
    for answer in answers:
        with pytest.raises(Internal, match="closed"):
            async for _ in answer:
                pass
    with pytest.raises(Internal, match="closed"):
        await ask(generator, PROMPTS[0])


async def test_a_failing_step_fails_its_requests_and_the_next_ones_work(made: Callable[..., tuple[Any, Any]]) -> None:
    loaded = made("Llama")
    generator = opened(loaded)
    embedding = loaded[0].get_input_embeddings()
    weights = embedding.weight.data
    try:
        answer = stream(generator, PROMPTS[1], replace(GREEDY, max_tokens=2000))
        await anext(answer)
        embedding.weight.data = weights[:1]  # nearly all tokens are out of its range now
        with pytest.raises(Internal, match="torch failed while generating"):
            async for _ in answer:
                pass
        embedding.weight.data = weights
        assert text(await ask(generator, PROMPTS[1])) == expected(loaded, PROMPTS[1])
    finally:
        await asyncio.to_thread(generator.close)


async def test_static_batches_answer_when_there_is_no_memory_for_a_cache(llama: tuple[Any, Any]) -> None:
    generator = opened(llama, cache_bytes=2**50)
    try:
        assert text(await ask(generator, PROMPTS[1])) == expected(llama, PROMPTS[1])
        assert (await ask(generator, PROMPTS[1], replace(GREEDY, temperature=1.0)))[-1].finish_reason == "length"
    finally:
        await asyncio.to_thread(generator.close)


def test_a_request_is_not_cancelled_where_the_next_step_may_end_a_page() -> None:
    assert not continuous.inside_page(0, 100)  # its prompt is still being read
    safe = [tokens for tokens in range(1, 513) if continuous.inside_page(1, tokens)]
    assert safe == [*range(16, 241), *range(272, 497)]


HARDWARE = {"kind": "cuda", "kv_cache_gib": 0.004, "max_sequences": 4}


async def test_a_model_that_managers_can_run_is_batched_continuously_and_nothing_is_printed(
    llama: tuple[Any, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    hardware = CudaHardwareSpec.model_validate(HARDWARE)
    generator = await asyncio.to_thread(continuous.generator, *llama, hardware, 0)
    try:
        assert isinstance(generator, continuous.ContinuousGenerator)
        answers = await asyncio.gather(*(ask(generator, prompt) for prompt in PROMPTS))
        await ask(generator, PROMPTS[0], replace(GREEDY, temperature=1.0))
    finally:
        await asyncio.to_thread(generator.close)
    assert [text(answer) for answer in answers] == [expected(llama, prompt) for prompt in PROMPTS]
    assert capfd.readouterr() == ("", "")


async def test_a_model_that_managers_can_not_run_is_answered_in_static_batches_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    causal(tmp_path, "Mamba", state_size=4)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    loaded = (model, transformers.AutoTokenizer.from_pretrained(tmp_path))
    generator = await asyncio.to_thread(continuous.generator, *loaded, CudaHardwareSpec.model_validate(HARDWARE), 0)
    try:
        answer = await ask(generator, PROMPTS[1], replace(GREEDY, max_tokens=4))
    finally:
        await asyncio.to_thread(generator.close)
    assert text(answer) == expected(loaded, PROMPTS[1], 4)
    assert "static batches instead of continuous batching: its layers have neither" in caplog.text


async def test_continuous_batching_can_be_turned_off(llama: tuple[Any, Any]) -> None:
    off = CudaHardwareSpec.model_validate(HARDWARE | {"continuous_batching": False})
    generator = continuous.generator(*llama, off, 0)
    try:
        assert not isinstance(generator, continuous.ContinuousGenerator)
        assert text(await ask(generator, PROMPTS[1])) == expected(llama, PROMPTS[1])
    finally:
        await asyncio.to_thread(generator.close)


async def test_a_penalty_of_the_models_own_is_not_a_requests(made: Callable[..., tuple[Any, Any]]) -> None:
    loaded = made("Llama")
    wanted = expected(loaded, PROMPTS[2])
    loaded[0].generation_config.repetition_penalty = 3.0
    hardware = CudaHardwareSpec.model_validate(HARDWARE)
    for spec in (hardware, hardware.model_copy(update={"continuous_batching": False})):
        generator = await asyncio.to_thread(continuous.generator, *loaded, spec, 0)
        try:
            assert text(await ask(generator, PROMPTS[2])) == wanted
        finally:
            await asyncio.to_thread(generator.close)


UNCLOSED = """
import asyncio, sys
import transformers
from engine.runtimes.generation.generator import answer
from engine.runtimes.torch import continuous
from engine.runtimes.generation.prompts import Prompt
from engine.schemas.hardware import CudaHardwareSpec
from engine.tasks.local_model import Sampling
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
generator = continuous.ContinuousGenerator(model, model, tokenizer, 4, 0, 2**22)
async def main():
    sampling = Sampling(max_tokens=4, temperature=0.0)
    async for piece in answer(generator, Prompt([5, 6], 2), sampling, context_length=64, whole=True):
        print(piece.tokens)
asyncio.run(main())
"""


def test_a_process_that_forgets_to_close_ends(tmp_path: Path) -> None:
    causal(tmp_path, "Llama")
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["4"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_on_a_gpu_greedy_sampled_and_cancelled_requests_work_side_by_side(
    made: Callable[..., tuple[Any, Any]], dtype: str
) -> None:
    model, tokenizer = made("Llama")
    model = model.to("cuda", getattr(torch, dtype))
    generator = await asyncio.to_thread(
        continuous.generator, model, tokenizer, CudaHardwareSpec.model_validate(HARDWARE), 0
    )
    try:
        assert isinstance(generator, continuous.ContinuousGenerator)
        for _ in range(20):
            leaver = stream(generator, PROMPTS[0], replace(GREEDY, max_tokens=400))
            async with aclosing(leaver):
                await anext(leaver)
            kinds = (GREEDY, replace(GREEDY, temperature=1.0), replace(GREEDY, temperature=1.0, seed=1))
            answers = await asyncio.gather(*(ask(generator, prompt, kind) for prompt in PROMPTS for kind in kinds))
            assert {answer[-1].finish_reason for answer in answers} == {"length"}
        if dtype == "float32":
            greedy = [text(answer) for answer in answers[:: len(kinds)]]
            assert greedy == [
                text(await ask(generator, prompt, replace(GREEDY, frequency_penalty=1e-6))) for prompt in PROMPTS
            ]
    finally:
        await asyncio.to_thread(generator.close)
