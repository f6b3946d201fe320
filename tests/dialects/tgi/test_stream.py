"""Streams of Text Generation Inference. Fixtures are from its OpenAPI document: `StreamResponse`, `ErrorResponse`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, InvalidRequest, Malformed, Overloaded, ServerFailed, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.codecs.sse import MAX_EVENT_BYTES
from engine.dialects.tgi.client import TgiDialect


def event(body: Any) -> bytes:
    return b"data:" + msgspec.json.encode(body) + b"\n\n"


def token(text: str, *, special: bool = False, **fields: Any) -> bytes:
    said = {"id": 1, "text": text, "logprob": -0.5, "special": special}
    return event({"index": 1, "token": said, "generated_text": None, "details": None, **fields})


DETAILS = {"finish_reason": "eos_token", "generated_tokens": 3, "seed": None, "input_length": 5}
LAST = token("</s>", special=True, generated_text="The sky", details=DETAILS)


def run(*pieces: bytes, task: str = "completion", show_usage: bool = True) -> list[Chunk]:
    decoder = TgiDialect(lambda: 1000.0).stream_decoder(task, show_usage=show_usage)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    return chunks + decoder.finish()


def fail(*pieces: bytes, task: str = "completion") -> tuple[list[Chunk], InferenceError]:
    decoder = TgiDialect(lambda: 1000.0).stream_decoder(task)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    with pytest.raises(InferenceError) as caught:
        decoder.finish()
    return chunks, caught.value


def test_tokens_come_one_by_one_and_the_whole_text_ends_them() -> None:
    chunks = run(token("The"), token(" sky"), LAST)
    assert [each.body["choices"][0]["text"] for each in chunks[:3]] == ["The", " sky", ""]
    assert [each.body["choices"][0]["finish_reason"] for each in chunks[:3]] == [None, None, "stop"]
    assert (chunks[3].body["choices"], chunks[3].usage) == ([], Usage(5, 3))
    assert chunks[0].body["object"] == "text_completion"


def test_usage_that_nobody_asked_for_comes_with_the_end_of_the_answer() -> None:
    chunks = run(token("The"), LAST, show_usage=False)
    assert (len(chunks), chunks[-1].usage) == (2, Usage(5, 3))


def test_log_probabilities_come_with_their_token() -> None:
    chunks = run(token("The", top_tokens=[{"text": "A", "logprob": -2.0}]), LAST)
    assert chunks[0].body["choices"][0]["logprobs"]["top_logprobs"] == [{"A": -2.0}]


def test_a_stream_without_the_whole_text_is_truncated() -> None:
    chunks, error = fail(token("The"))
    assert (len(chunks), type(error)) == (1, Truncated)
    assert type(fail(token("The"), LAST[:-10])[1]) is Truncated


def test_a_last_event_whose_empty_line_was_lost_is_an_end() -> None:
    assert run(token("The"), LAST[:-2])[-1].usage == Usage(5, 3)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("generation", ServerFailed),
        ("overloaded", Overloaded),
        ("validation", InvalidRequest),
        ("incomplete_generation", Truncated),
    ],
)
def test_an_error_in_the_middle_keeps_what_came_before(word: str, kind: type[InferenceError]) -> None:
    chunks, error = fail(token("The"), event({"error": "what happened", "error_type": word}), token("never"))
    assert (len(chunks), type(error)) == (1, kind)
    assert "what happened" in error.message


@pytest.mark.parametrize("bad", [b"data: {\n\n", b"data: 1\n\n", b"data: {}\n\n", b'data: {"token":1}\n\n'])
def test_an_event_that_is_no_token_is_malformed(bad: bytes) -> None:
    assert type(fail(token("The"), bad)[1]) is Malformed


@pytest.mark.slow
def test_an_event_without_an_end_is_bounded() -> None:
    decoder = TgiDialect().stream_decoder("completion")
    decoder.feed(b"data:")
    for _ in range(MAX_EVENT_BYTES // 1048576 + 1):
        decoder.feed(b"x" * 1048576)
    assert decoder.ended
    with pytest.raises(Malformed, match="more than 16777216 bytes"):
        decoder.finish()


def test_chunks_are_the_same_wherever_the_bytes_are_cut() -> None:
    stream = token("Zoë 😀") + b": keep-alive\n\n" + token("日本") + LAST
    whole = [each.body for each in run(stream)]
    for cut in range(1, len(stream)):
        assert [each.body for each in run(stream[:cut], stream[cut:])] == whole


def chat_event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def test_a_chats_chunks_say_why_it_ended_as_openai_does() -> None:
    call = {"index": 0, "id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunks = run(chat_event({"tool_calls": [call]}), chat_event({}, "eos_token"), b"data: [DONE]\n\n", task="chat")
    assert chunks[-1].body["choices"][0]["finish_reason"] == "tool_calls"
    chunks = run(chat_event({"content": "x"}), chat_event({}, "stop_sequence"), b"data: [DONE]\n\n", task="chat")
    assert chunks[-1].body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("message", "kind"),
    [("Model is overloaded", Overloaded), ("Input validation error: x", InvalidRequest), ("Boom", ServerFailed)],
)
def test_a_chats_error_is_known_by_its_words(message: str, kind: type[InferenceError]) -> None:
    data = event({"error": {"message": message, "http_status_code": 422}})
    assert type(fail(chat_event({"content": "x"}), data, task="chat")[1]) is kind
