"""Answers that a JSON schema describes, with a real model, the same on every runtime."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from engine.core.errors import InvalidRequest
from engine.tasks.local_model import Sampling, TextDelta
from tests.runtimes.tiny_models import causal

pytestmark = pytest.mark.slow

FRUIT = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green", "yellow"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
    },
    "required": ["colour", "count", "tags"],
    "additionalProperties": False,
}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
QUESTION = "Describe an apple as JSON."
BROKEN = [
    {"type": "fruit"},
    {"type": "string", "pattern": "("},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/absent"}}, "required": ["a"]},
    {"type": "integer", "minimum": 5, "maximum": 2},
    {"enum": []},
]


def is_fruit(written: str) -> bool:
    """Whether the text is JSON as FRUIT describes it."""
    value = json.loads(written)
    return (
        list(value) == ["colour", "count", "tags"]
        and value["colour"] in ("red", "green", "yellow")
        and type(value["count"]) is int
        and 0 <= value["count"] <= 99
        and len(value["tags"]) <= 2
        and all(isinstance(tag, str) and len(tag) <= 8 for tag in value["tags"])
    )


def is_colour(written: str) -> bool:
    """Whether the text is JSON as COLOUR describes it."""
    return json.loads(written) in ({"colour": "red"}, {"colour": "green"})


async def ask(runtime: Any, schema: Any, question: str = QUESTION, **sampling: Any) -> list[TextDelta]:
    prompt = await runtime.encode_chat([{"role": "user", "content": question}])
    written = None if schema is None else json.dumps(schema)
    options = Sampling(**{"max_tokens": 40, "temperature": 0.0, "schema": written, **sampling})
    return [piece async for piece in runtime.generate(prompt, options)]


def text(answer: list[TextDelta]) -> str:
    return "".join(piece.text for piece in answer)


async def test_the_answer_is_an_instance_of_the_schema_and_ends_with_it(generator: Any) -> None:
    answer = await ask(generator, FRUIT, max_tokens=120)
    assert is_fruit(text(answer))
    assert answer[-1].finish_reason == "stop"
    assert len(answer) > 8  # it came in pieces


async def test_an_answer_asked_for_whole_is_held_to_it_too(generator: Any) -> None:
    prompt = await generator.encode_chat([{"role": "user", "content": QUESTION}])
    asked = Sampling(40, temperature=0.0, schema=json.dumps(COLOUR))
    (piece,) = [piece async for piece in generator.generate(prompt, asked, whole=True)]
    assert is_colour(piece.text)
    assert piece.finish_reason == "stop"


async def test_eight_at_once_keep_to_their_own_schemas_or_to_none(generator: Any) -> None:
    words = [{"type": "string", "enum": [word]} for word in ("pear", "plum", "fig")]
    schemas = [COLOUR, None, words[0], words[1], {"type": "boolean"}, None, words[2], COLOUR]
    started = generator.steps
    questions = ["What is the capital of France?" if schema is None else QUESTION for schema in schemas]
    answers = await asyncio.gather(*map(ask, [generator] * 8, schemas, questions))
    said = [text(answer) for answer in answers]
    assert is_colour(said[0])
    assert is_colour(said[7])
    assert "Paris" in said[1]
    assert "Paris" in said[5]
    assert [json.loads(said[place]) for place in (2, 3, 6)] == ["pear", "plum", "fig"]
    assert json.loads(said[4]) in (True, False)
    assert all(answer[-1].finish_reason == "stop" for answer in answers)
    # Together: one after the other would be the sum of all.
    assert generator.steps - started < sum(piece.tokens for answer in answers for piece in answer) / 2


async def test_broken_schemas_fail_their_own_requests_only(generator: Any) -> None:
    schemas = [COLOUR, *BROKEN, None]
    questions = [QUESTION] * (1 + len(BROKEN)) + ["What is the capital of France?"]
    good, *bad, plain = await asyncio.gather(
        *map(ask, [generator] * len(schemas), schemas, questions), return_exceptions=True
    )
    assert all(isinstance(error, InvalidRequest) for error in bad)
    beginning = "body.response_format.json_schema.schema: no grammar can be made of it: "
    assert all(str(error).startswith(beginning) for error in bad)
    assert isinstance(good, list)
    assert is_colour(text(good))
    assert isinstance(plain, list)
    assert "Paris" in text(plain)


@pytest.mark.parametrize("keyword", ["not", "if"])
async def test_a_keyword_that_would_have_no_effect_is_refused_by_its_name(generator: Any, keyword: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"body\.response_format\.json_schema\.schema.*{keyword}"):
        await ask(generator, {"type": "string", keyword: {"type": "string"}})


async def test_too_few_tokens_end_it_unfinished_with_length(generator: Any) -> None:
    answer = await ask(generator, FRUIT, max_tokens=5)
    assert answer[-1].finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text(answer))


async def test_a_stop_string_ends_it_before_the_json_is_whole(generator: Any) -> None:
    answer = await ask(generator, FRUIT, stop=('"count',))
    assert answer[-1].finish_reason == "stop"
    assert '"colour"' in text(answer)
    assert '"count' not in text(answer)


async def test_sampled_answers_with_penalties_keep_to_the_schema(generator: Any) -> None:
    options = {"temperature": 1.5, "top_p": 0.9, "top_k": 40, "frequency_penalty": 0.5}
    answers = await asyncio.gather(*(ask(generator, COLOUR, **options) for _ in range(4)))
    ended = [text(answer) for answer in answers if answer[-1].finish_reason == "stop"]
    assert ended
    assert all(map(is_colour, ended))


async def test_a_caller_who_leaves_does_not_disturb_the_others(generator: Any) -> None:
    prompt = await generator.encode_chat([{"role": "user", "content": QUESTION}])
    endless = Sampling(2000, temperature=0.0, schema='{"type":"string","minLength":1500}')
    stayer = asyncio.create_task(ask(generator, COLOUR))
    async with aclosing(generator.generate(prompt, endless)) as pieces:
        async for _ in pieces:
            break
    assert is_colour(text(await stayer))


async def test_a_broken_schema_is_known_before_a_stream_begins(generator: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.response_format\.json_schema\.schema: "):
        await generator.check(Sampling(40, schema='{"type":"fruit"}'))
    await generator.check(Sampling(40, schema=json.dumps(COLOUR)))


def body(response_format: Any, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"messages": messages, "temperature": 0, "max_tokens": 40, "response_format": response_format, **more}


async def test_openais_bodies_are_answered_refused_and_streamed(smollm2_gguf: Path) -> None:
    pytest.importorskip("openvino_genai")
    strict = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR, "strict": True}}
    broken = {"type": "json_schema", "json_schema": {"name": "colour", "schema": {"type": "fruit"}}}
    async with Engine.compose(["provider=local", "model=smollm2-135m", "hardware=openvino"]) as engine:
        chat, completion, refused, free = await asyncio.gather(
            engine.submit(Request("chat", body(strict))),
            engine.submit(Request("completion", {"prompt": "An apple as JSON:", **body(strict, messages=None)})),
            engine.submit(Request("chat", body(broken))),
            engine.submit(Request("chat", body({"type": "json_object"}, max_tokens=16))),
        )
        streamed = [chunk.body["choices"][0] async for chunk in engine.stream(Request("chat", body(strict)))]
        with pytest.raises(InvalidRequest, match=r"body\.response_format\.json_schema\.schema: "):
            _ = [chunk async for chunk in engine.stream(Request("chat", body(broken)))]
    assert is_colour(chat.body["choices"][0]["message"]["content"])
    assert is_colour(completion.body["choices"][0]["text"])
    assert refused.error is not None
    assert isinstance(refused.error, InvalidRequest)
    assert free.body["choices"][0]["message"]["content"].startswith("{")
    assert free.body["choices"][0]["finish_reason"] == "length"
    assert is_colour("".join(choice["delta"].get("content") or "" for choice in streamed))
    assert streamed[-1]["finish_reason"] == "stop"


def test_without_llguidance_the_way_to_install_it_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    causal(tmp_path / "model", "Llama")
    absent = tmp_path / "llguidance.py"
    absent.write_text("raise ModuleNotFoundError('it is not installed', name='llguidance')\n", encoding="utf-8")
    rows = tmp_path / "rows.jsonl"
    asked = {"prompt": "hello", "max_tokens": 4, "response_format": {"type": "json_object"}}
    rows.write_text(json.dumps(asked) + "\n", encoding="utf-8")
    source = f"model.sources=[{{kind: file, path: {tmp_path / 'model'}, format: safetensors}}]"
    model = ["model=remote", "model.name=tiny", "model.tasks=[completion]", source]
    words = ["provider=local", "hardware=cpu", *model, "workload=jsonl", f"workload.path={rows}"]
    command = [sys.executable, "-m", "engine", *words, f"output.root={tmp_path / 'runs'}"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert 'needs llguidance. Next: pip install "ipfs-accelerate[structured]"' in ended.stdout + ended.stderr
