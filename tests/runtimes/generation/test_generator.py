"""Generation with a real model, the same on every runtime."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from engine.core.errors import TooLong
from engine.tasks.local_model import Sampling, TextDelta

pytestmark = pytest.mark.slow


async def ask(runtime: Any, question: str, **sampling: Any) -> list[TextDelta]:
    prompt = await runtime.encode_chat([{"role": "user", "content": question}])
    return await pieces(runtime, prompt, **sampling)


async def pieces(runtime: Any, prompt: Any, **sampling: Any) -> list[TextDelta]:
    options = {"max_tokens": 48, "temperature": 0.0, **sampling}
    return [piece async for piece in runtime.generate(prompt, Sampling(**options))]


def text(answer: list[TextDelta]) -> str:
    return "".join(piece.text for piece in answer)


async def test_a_question_gets_the_right_answer(generator: Any) -> None:
    answer = await ask(generator, "What is the capital of France?")
    assert "Paris" in text(answer)
    assert answer[-1].finish_reason == "stop"


async def test_the_prompt_follows_the_models_chat_template_and_its_system_prompt(generator: Any) -> None:
    alone = await generator.encode_chat([{"role": "user", "content": "hi"}])
    plain = await generator.encode_text(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(alone) == len(plain) == 31


async def test_tokens_arrive_one_by_one_while_they_are_generated(generator: Any) -> None:
    prompt = await generator.encode_text("The three largest cities of Germany are")
    arrivals = []
    started = generator.steps
    async for piece in generator.generate(prompt, Sampling(max_tokens=12, temperature=0)):
        arrivals.append((generator.steps - started, piece))
    assert len(arrivals) > 1  # a consumer that a busy machine delays gets several tokens at once
    # The first was here when most of the answer was still to be computed.
    assert arrivals[0][0] <= 4
    assert sum(piece.tokens for _, piece in arrivals) == 12
    assert arrivals[-1][1].finish_reason == "length"


async def test_eight_at_once_share_their_steps(generator: Any) -> None:
    started = generator.steps
    prompts = [await generator.encode_text(f"Once upon a time there were {n}") for n in range(2, 10)]
    answers = await asyncio.gather(*(pieces(generator, prompt, max_tokens=8) for prompt in prompts))
    tokens = sum(piece.tokens for answer in answers for piece in answer)
    assert tokens == 8 * 8
    # The first may start alone before the others have arrived.
    assert generator.steps - started <= 2 * 8 + 8


async def test_company_does_not_change_a_greedy_answer(generator: Any) -> None:
    alone = text(await ask(generator, "What is 2 + 2?", max_tokens=8))
    questions = ["What is 2 + 2?", "Name a colour of the rainbow and say why you like it.", "What is 2 + 2?"]
    together = await asyncio.gather(*(ask(generator, question, max_tokens=8) for question in questions))
    assert text(together[0])[:12] == text(together[2])[:12] == alone[:12]


async def test_leaving_stops_the_generation(generator: Any) -> None:
    prompt = await generator.encode_text("Once upon a time")
    async with aclosing(generator.generate(prompt, Sampling(max_tokens=4000, temperature=0))) as answer:
        async for _ in answer:
            break
    # The next request is computed within a few steps of its own length: nothing of the first is left.
    await pieces(generator, prompt, max_tokens=2)
    before = generator.steps
    await pieces(generator, prompt, max_tokens=2)
    assert generator.steps - before <= 4


async def test_a_cancelled_caller_does_not_disturb_the_others(generator: Any) -> None:
    prompt = await generator.encode_text("The sea is")
    leaver = asyncio.create_task(pieces(generator, prompt, max_tokens=2000))
    stayer = asyncio.create_task(pieces(generator, prompt, max_tokens=20))
    await pieces(generator, prompt, max_tokens=3)
    leaver.cancel()
    answer = await stayer
    assert answer[-1].finish_reason is not None
    assert len(text(answer)) > 20
    with pytest.raises(asyncio.CancelledError):
        await leaver


@pytest.mark.parametrize("written", ["🙂🚀🙂🚀🙂🚀🙂🚀", "你好世界你好世界你好世界你好世界"])
async def test_characters_of_several_tokens_come_whole(generator: Any, written: str) -> None:
    prompt = await generator.encode_text(f"{written}\n{written}\n{written}\n{written[:4]}")
    answer = await pieces(generator, prompt, max_tokens=12)
    assert any(character in text(answer) for character in written)
    assert all("\ufffd" not in piece.text for piece in answer)


async def test_an_answer_asked_for_whole_comes_in_one_piece(generator: Any) -> None:
    prompt = await generator.encode_text("1, 2, 3, 4, 5,")
    (piece,) = [piece async for piece in generator.generate(prompt, Sampling(9, temperature=0), whole=True)]
    assert piece.text.startswith(" 6, 7, 8")
    assert (piece.tokens, piece.finish_reason) == (9, "length")


async def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(generator: Any) -> None:
    prompt = await generator.encode_text("1, 2, 3, 4, 5,")
    answer = await pieces(generator, prompt, max_tokens=40, stop=("8, 9",))
    assert text(answer) == " 6, 7, "
    assert answer[-1].finish_reason == "stop"


async def test_spaces_between_words_are_kept(generator: Any) -> None:
    prompt = await generator.encode_text("1, 2, 3, 4, 5,")
    assert text(await pieces(generator, prompt, max_tokens=9)).startswith(" 6, 7, 8")


async def test_a_prompt_longer_than_the_context_is_too_long(generator: Any) -> None:
    prompt = await generator.encode_text("word " * 9000)
    with pytest.raises(TooLong, match="8192"):
        await pieces(generator, prompt)


async def test_a_seed_gives_the_same_answer_again(generator: Any) -> None:
    prompt = await generator.encode_text("My favourite animal is")
    options = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 8}
    first, again, other = [text(await pieces(generator, prompt, seed=seed, **options)) for seed in (7, 7, 8)]
    assert first == again != other


async def test_without_a_seed_answers_differ(generator: Any) -> None:
    prompt = await generator.encode_text("My favourite animal is")
    answers = {text(await pieces(generator, prompt, temperature=1.0, max_tokens=8)) for _ in range(3)}
    assert len(answers) > 1


async def test_penalties_end_a_repetition(generator: Any) -> None:
    prompt = await generator.encode_text("red red red red red red red red")
    plain = text(await pieces(generator, prompt, max_tokens=10))
    penalised = text(await pieces(generator, prompt, max_tokens=10, frequency_penalty=2.0, presence_penalty=2.0))
    assert plain.count("red") > penalised.count("red")


def test_it_serves_one_event_loop_after_another(generator: Any) -> None:
    for _ in range(2):
        assert "Paris" in text(asyncio.run(ask(generator, "What is the capital of France?")))
