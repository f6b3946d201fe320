"""Streams. Fixtures are from Ollama's docs: docs/api.md, "Chat request (Streaming)"; "Errors"; "Thinking"."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, Malformed, ServerFailed, Throttled, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.codecs.ndjson import MAX_LINE_BYTES
from engine.dialects.ollama.stream import OllamaStreamDecoder

AT = {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00"}
LAST = {
    **AT,
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 4883583458,
    "prompt_eval_count": 26,
    "eval_count": 282,
}


def line(body: Any) -> bytes:
    return msgspec.json.encode(body) + b"\n"


def said(done: bool = False, **message: Any) -> bytes:
    return line({**AT, "message": {"role": "assistant", "content": "", **message}, "done": done})


def run(*pieces: bytes, task: str = "chat", show_usage: bool = True) -> list[Chunk]:
    decoder = OllamaStreamDecoder(task, lambda: 0.0, show_usage=show_usage)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    return chunks + decoder.finish()


def fail(*pieces: bytes, task: str = "chat") -> tuple[list[Chunk], InferenceError]:
    decoder = OllamaStreamDecoder(task, lambda: 0.0)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    with pytest.raises(InferenceError) as caught:
        decoder.finish()
    return chunks, caught.value


def deltas(chunks: list[Chunk]) -> list[dict[str, Any]]:
    return [each.body["choices"][0]["delta"] for each in chunks if each.body["choices"]]


def test_text_comes_piece_by_piece_and_done_ends_it() -> None:
    decoder = OllamaStreamDecoder("chat")
    chunks = decoder.feed(said(content="The") + said(content=" sky") + line(LAST))
    assert decoder.ended
    assert deltas(chunks) == [{"role": "assistant", "content": "The"}, {"content": " sky"}, {}]
    assert [each.body["choices"][0]["finish_reason"] for each in chunks[:3]] == [None, None, "stop"]
    assert {name: chunks[0].body[name] for name in ("id", "object", "created", "model")} == {
        "id": "chatcmpl-202308040852193854064550700",
        "object": "chat.completion.chunk",
        "created": 1691164339,
        "model": "llama3.2",
    }
    assert len({each.body["id"] for each in chunks}) == 1


def test_usage_comes_last_in_a_chunk_of_its_own() -> None:
    last = run(said(content="x"), line(LAST))[-1]
    assert (last.body["choices"], last.usage) == ([], Usage(26, 282))
    assert last.body["usage"] == {"prompt_tokens": 26, "completion_tokens": 282, "total_tokens": 308}


def test_usage_that_nobody_asked_for_comes_with_the_end_of_the_answer() -> None:
    last = run(said(content="x"), line(LAST), show_usage=False)[-1]
    assert (last.body["choices"][0]["finish_reason"], last.usage) == ("stop", Usage(26, 282))


def test_thinking_is_the_reasoning() -> None:
    assert deltas(run(said(thinking="hm"), said(content="42"), line(LAST)))[:2] == [
        {"role": "assistant", "reasoning_content": "hm"},
        {"content": "42"},
    ]


def test_tool_calls_are_numbered_over_the_whole_answer() -> None:
    # "Chat request (Streaming with tools)"
    call = {"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
    chunks = run(said(tool_calls=[call]), said(tool_calls=[call]), line(LAST))
    calls = [each for delta in deltas(chunks) for each in delta.get("tool_calls", [])]
    assert [(each["index"], each["id"]) for each in calls] == [(0, "call_0"), (1, "call_1")]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": '{"city":"Tokyo"}'}
    assert chunks[2].body["choices"][0]["finish_reason"] == "tool_calls"


def test_a_last_line_without_a_message_is_an_end() -> None:
    # "Chat request (With History)": its final response has no message.
    assert len(run(said(content="x"), line({**AT, "done": True, "eval_count": 1}))) == 3


def test_a_completions_pieces_are_text() -> None:
    chunks = run(
        line({**AT, "response": "The", "done": False, "logprobs": [{"token": "The", "logprob": -0.5}]}),
        line({**AT, "response": "", "done": True, "done_reason": "length"}),
        task="completion",
    )
    assert [each.body["choices"][0]["text"] for each in chunks] == ["The", ""]
    assert chunks[0].body["object"] == "text_completion"
    assert chunks[0].body["choices"][0]["logprobs"]["tokens"] == ["The"]
    assert chunks[1].body["choices"][0]["finish_reason"] == "length"


def test_a_stream_without_done_is_truncated() -> None:
    chunks, error = fail(said(content="The"))
    assert (len(chunks), type(error)) == (1, Truncated)
    assert "after its first chunks" in error.message


def test_a_last_line_whose_newline_was_lost_is_an_end() -> None:
    assert run(said(content="x"), line(LAST)[:-1])[-1].usage == Usage(26, 282)


def test_half_a_last_line_is_not() -> None:
    assert type(fail(said(content="x"), line(LAST)[:-20])[1]) is Truncated


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("an error was encountered while running the model", ServerFailed),
        ("429 Too Many Requests: you have reached your hourly usage limit", Throttled),
    ],
)
def test_an_error_in_the_middle_keeps_what_came_before(message: str, kind: type[InferenceError]) -> None:
    chunks, error = fail(said(content="Yes"), line({"error": message}), said(content="never"))
    assert deltas(chunks) == [{"role": "assistant", "content": "Yes"}]
    assert type(error) is kind
    assert message in error.message


@pytest.mark.parametrize(
    "bad",
    [
        b"{\n",
        b"1\n",
        b"[]\n",
        b"{}\n",
        b'{"message":1}\n',
        b'{"message":{"tool_calls":[1]}}\n',
        b'{"message":{},"x":"\xff"}\n',
        b'{"message":{"content":"x"},"logprobs":[1]}\n',
        b'{"done":true,"done_reason":"load"}\n',
    ],
)
def test_a_line_that_is_no_chunk_is_malformed(bad: bytes) -> None:
    chunks, error = fail(said(content="x"), bad)
    assert (len(chunks), type(error)) == (1, Malformed)


@pytest.mark.slow
def test_a_line_without_an_end_is_bounded() -> None:
    decoder = OllamaStreamDecoder("chat")
    piece = b"x" * (1024 * 1024)
    for _ in range(MAX_LINE_BYTES // len(piece) + 1):
        decoder.feed(piece)
    assert decoder.ended
    with pytest.raises(Malformed, match="more than 16777216 bytes"):
        decoder.finish()


def test_chunks_are_the_same_wherever_the_bytes_are_cut() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"é": "日本"}}}
    stream = b"\r\n".join(
        [said(content="Zoë 😀").strip(), said(tool_calls=[call]).strip(), said(thinking="…").strip(), line(LAST)]
    )
    whole = [each.body for each in run(stream)]
    for cut in range(1, len(stream)):
        assert [each.body for each in run(stream[:cut], stream[cut:])] == whole
    assert [each.body for each in run(*(bytes([byte]) for byte in stream))] == whole
