from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import OverloadedError
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError, InvalidRequest, Overloaded, ServerFailed, TooLong, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.openai.server import usage_body
from engine.dialects.server import ClientCall
from engine.dialects.tgi.client import TgiDialect
from engine.dialects.tgi.server import TgiServerDialect
from tests.servers.dialect_server import DialectServer

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
HEAD = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": ""}


def read(path: str = "/generate", **wire: Any) -> ClientCall:
    return TgiServerDialect().read(path, {}, {}, msgspec.json.encode({"inputs": "x", **wire}))


def chunk(text: str, reason: str | None = None, usage: Usage | None = None) -> Chunk:
    return Chunk({**HEAD, "choices": [{"index": 0, "text": text, "finish_reason": reason}]}, usage)


def test_parameters_become_fields() -> None:
    call = read(
        parameters={
            "max_new_tokens": 5,
            "stop": ["END"],
            "top_n_tokens": 2,
            "watermark": True,
            "seed": None,
            "temperature": 0.5,
            "return_full_text": False,
            "grammar": {"type": "json", "value": {"a": 1}},
            "decoder_input_details": True,
            "new": 1,
        }
    )
    assert call.body == {
        "prompt": "x",
        "max_tokens": 5,
        "stop": ["END"],
        "logprobs": 2,
        "watermark": True,
        "temperature": 0.5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": {"a": 1}}},
    }
    assert call.warnings == [
        "body.parameters.new has no effect here",
        "body.parameters.decoder_input_details has no effect here",
    ]


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [(None, None), ({}, 0), ({"do_sample": False}, 0), ({"do_sample": True}, None), ({"top_k": 3}, None)],
)
def test_the_likeliest_is_taken_where_nothing_asks_for_sampling(parameters: Any, temperature: Any) -> None:
    assert read(parameters=parameters).body.get("temperature") == temperature


@pytest.mark.parametrize(
    ("path", "wire", "stream"),
    [
        ("/generate", {}, False),
        ("/generate", {"stream": True}, False),
        ("/generate_stream", {}, True),
        ("/", {"stream": True}, True),
    ],
)
def test_the_path_says_whether_it_streams(path: str, wire: dict[str, Any], stream: bool) -> None:
    assert read(path, **wire).stream is stream


@pytest.mark.parametrize(
    "wire",
    [{"inputs": ""}, {"inputs": 1}, {"parameters": 1}, {"parameters": {"grammar": {"type": "regex", "value": "x"}}}],
)
def test_what_can_not_be_understood_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"body\."):
        read(**wire)


fields = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 99),
        "temperature": st.floats(0.1, 2) | st.just(0),
        "top_p": st.floats(0.1, 0.9),
        "top_k": st.integers(1, 9),
        "seed": st.integers(0, 9),
        "frequency_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.5, 2),
        "stop": st.lists(texts.filter(bool), min_size=1),
        "best_of": st.just(2),
        "echo": st.just(True),
        "logprobs": st.integers(1, 5),
        "typical_p": st.just(0.9),
        "truncate": st.just(5),
        "response_format": st.just({"type": "json_object"}),
    },
)


@given(texts.filter(bool), fields)
def test_a_completion_comes_back_as_it_was_sent(prompt: str, more: dict[str, Any]) -> None:
    if more.get("temperature") == 0:
        more = {name: more[name] for name in more if name not in ("top_p", "top_k", "typical_p")}
    body = {"prompt": prompt, **more}
    wire = TgiDialect().encode("completion", body, model="m", stream=False)
    call = TgiServerDialect().read(wire.path, {}, {}, wire.content)
    assert (call.body, call.stream, call.warnings) == (body, False, [])


@given(texts, st.sampled_from(["stop", "length"]), st.integers(1, 99), st.booleans())
def test_a_reply_comes_back_as_it_was_given(text: str, reason: str, tokens: int, likeliest: bool) -> None:
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": reason}
    if likeliest:
        choice["logprobs"] = {
            "tokens": [text],
            "token_logprobs": [-0.5],
            "top_logprobs": [{"a": -1.0}],
            "text_offset": [0],
        }
    body = {**HEAD, "choices": [choice], "usage": usage_body(Usage(7, tokens))}
    wire = TgiServerDialect().reply(read(parameters={"details": True}), body)
    assert TgiDialect(lambda: 0.0).decode("completion", 200, {"x-prompt-tokens": "7"}, wire).body == body


def test_details_come_only_where_they_were_asked_for() -> None:
    body = {**HEAD, "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}
    assert TgiServerDialect().reply(read(), body) == b'{"generated_text":"x"}'
    assert TgiServerDialect().reply(read("/"), body) == b'[{"generated_text":"x"}]'


@given(st.lists(texts, max_size=4))
def test_a_stream_comes_back_as_it_was_given_wherever_it_is_cut(pieces: list[str]) -> None:
    encoder = TgiServerDialect().stream_encoder(read("/generate_stream", parameters={"details": True}))
    data = b"".join(encoder.chunk(chunk(piece)) for piece in pieces)
    data += encoder.chunk(chunk("", "length", Usage(3, 4))) + encoder.end()
    decoder = TgiDialect().stream_decoder("completion")
    found = [each for byte in data for each in decoder.feed(bytes([byte]))] + decoder.finish()
    choices = [each.body["choices"][0] for each in found if each.body["choices"]]
    assert "".join(choice["text"] for choice in choices) == "".join(pieces)
    assert (choices[-1]["finish_reason"], found[-1].usage) == ("length", Usage(3, 4))


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("no room", retry_after_s=2),
        TooLong("`inputs` must have less than 5 tokens"),
        InvalidRequest("bad"),
        Truncated("cut"),
        ServerFailed("gone"),
    ],
)
def test_a_refusal_is_the_same_error_to_a_client(error: InferenceError) -> None:
    status, headers, content = TgiServerDialect().refusal(error)
    found = TgiDialect().error(status, headers, content)
    assert (type(found), found.retry_after_s) == (type(error), error.retry_after_s)


async def test_hugging_faces_client_generates() -> None:
    async def answer(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
        if call.body["prompt"] == "too much":
            raise Overloaded("Model is overloaded")
        if call.stream:
            return [chunk("The"), chunk(" sky"), chunk("", "length", Usage(3, 2))]
        choice = {"index": 0, "text": "The sky", "finish_reason": "length"}
        return {**HEAD, "choices": [choice], "usage": usage_body(Usage(3, 2))}

    async with DialectServer("tgi", answer, models=["m"]) as server:
        client = AsyncInferenceClient(model=server.url, token="k")
        assert await client.text_generation("why?", max_new_tokens=2) == "The sky"
        whole = await client.text_generation("why?", details=True, seed=1)
        assert whole.details is not None
        assert (whole.generated_text, whole.details.finish_reason, whole.details.generated_tokens) == (
            "The sky",
            "length",
            2,
        )
        assert (server.calls[0].key, server.calls[0].body) == (
            "k",
            {"prompt": "why?", "max_tokens": 2, "temperature": 0},
        )
        pieces = [piece async for piece in await client.text_generation("why?", details=True, stream=True)]
        assert "".join(piece.token.text for piece in pieces) == "The sky"
        assert (pieces[-1].generated_text, pieces[-1].details.input_length) == ("The sky", 3)
        with pytest.raises(OverloadedError, match="overloaded"):
            await client.text_generation("too much")
