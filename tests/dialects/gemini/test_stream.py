"""Gemini's streams, written from its API reference, "Generating content" (streamGenerateContent, alt=sse)."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import (
    ContentFiltered,
    InferenceError,
    Malformed,
    Overloaded,
    ServerFailed,
    Throttled,
    Truncated,
)
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.gemini.client import GeminiDialect


def event(
    *parts: dict[str, Any], reason: str | None = None, index: int | None = 0, end: bytes = b"\r\n", **fields: Any
) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
    if index is not None:
        candidate["index"] = index
    if reason is not None:
        candidate["finishReason"] = reason
    return raw({"candidates": [candidate], "modelVersion": "m", "responseId": "r1", **fields}, end)


def raw(body: Any, end: bytes = b"\r\n") -> bytes:
    return b"data: " + msgspec.json.encode(body) + end + end


def usage(prompt: int, answer: int) -> dict[str, Any]:
    return {"promptTokenCount": prompt, "candidatesTokenCount": answer, "totalTokenCount": prompt + answer}


def run(*pieces: bytes, show_usage: bool = True) -> list[Chunk]:
    decoder = GeminiDialect(lambda: 3.0).stream_decoder("chat", show_usage=show_usage)
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return chunks + decoder.finish()


def fail(*pieces: bytes) -> tuple[list[Chunk], InferenceError]:
    decoder = GeminiDialect(lambda: 3.0).stream_decoder("chat")
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    with pytest.raises(InferenceError) as caught:
        decoder.finish()
    return chunks, caught.value


def choices(chunks: list[Chunk]) -> list[tuple[int, dict[str, Any], str | None]]:
    return [
        (choice["index"], choice["delta"], choice["finish_reason"])
        for chunk in chunks
        for choice in chunk.body["choices"]
    ]


TEXT = event({"text": "Pa"}, usageMetadata=usage(7, 1))
LAST = event({"text": "ris."}, reason="STOP", usageMetadata=usage(7, 2))


def test_a_stream_is_canonical() -> None:
    head = {"id": "r1", "object": "chat.completion.chunk", "created": 3, "model": "m"}
    chunks = run(TEXT, LAST)
    assert [chunk.body for chunk in chunks] == [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Pa"}, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {"content": "ris."}, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {
            **head,
            "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        },
    ]
    assert chunks[-1].usage == Usage(7, 2)


def test_usage_that_nobody_asked_for_comes_with_the_end() -> None:
    chunks = run(TEXT, LAST, show_usage=False)
    assert choices(chunks)[-1] == (0, {}, "stop")
    assert chunks[-1].usage == Usage(7, 2)
    assert "usage" not in chunks[-1].body


def test_the_tokens_of_a_stream_that_breaks_are_known() -> None:
    chunks, failure = fail(TEXT)
    assert type(failure) is Truncated
    assert chunks[-1].usage == Usage(7, 1)


def test_thoughts_are_streamed_apart() -> None:
    assert choices(run(event({"text": "Hm", "thought": True}), LAST))[:2] == [
        (0, {"role": "assistant", "reasoning_content": "Hm"}, None),
        (0, {"content": "ris."}, None),
    ]


def test_calls_are_counted_over_the_stream() -> None:
    first = {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}
    second, third = {"functionCall": {"name": "g"}}, {"functionCall": {"name": "h", "args": {}}}
    said = choices(run(event(first), event(second, third), event({"text": ""}, reason="STOP")))
    calls = [call for _, delta, _ in said for call in delta.get("tool_calls", ())]
    assert calls == [
        {
            "index": 0,
            "id": "a",
            "type": "function",
            "function": {"name": "f", "arguments": '{"x":1}'},
            "extra_content": {"google": {"thought_signature": "c2ln"}},
        },
        {"index": 1, "id": "call_r1_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 2, "id": "call_r1_2", "type": "function", "function": {"name": "h", "arguments": "{}"}},
    ]
    assert said[-1] == (0, {}, "tool_calls")


def test_candidates_are_streamed_side_by_side() -> None:
    said = choices(
        run(
            event({"text": "a"}),
            event({"text": "b"}, index=1),
            event({"text": "A"}, reason="STOP"),
            event({"text": "B"}, index=1, reason="MAX_TOKENS"),
        )
    )
    assert [each for each in said if each[0] == 1][-1] == (1, {}, "length")
    assert "".join(delta.get("content", "") for index, delta, _ in said if index == 1) == "bB"


def test_one_answer_of_two_that_has_no_end_is_truncated() -> None:
    assert type(fail(event({"text": "a"}), event({"text": "b"}, index=1), LAST)[1]) is Truncated


def test_log_probabilities_are_streamed() -> None:
    result = {"chosenCandidates": [{"token": "Pa", "logProbability": -0.5}]}
    body = {"candidates": [{"content": {"parts": [{"text": "Pa"}]}, "finishReason": "STOP", "logprobsResult": result}]}
    assert run(raw(body))[0].body["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5


def test_an_index_that_is_left_out_is_the_first() -> None:
    assert choices(run(event({"text": "a"}, index=None, reason="STOP")))[0][0] == 0


def test_usage_may_come_after_the_finish_reason() -> None:
    chunks = run(event({"text": "a"}, reason="STOP"), raw({"usageMetadata": usage(7, 3), "responseId": "r1"}))
    assert chunks[-1].usage == Usage(7, 3)


def test_the_last_empty_line_may_be_lost() -> None:
    assert choices(run(TEXT, LAST.rstrip()))[-1] == (0, {}, "stop")


@pytest.mark.parametrize("pieces", [(), (b"",), (b": ping\n\n",)])
def test_a_stream_of_nothing_is_truncated(pieces: tuple[bytes, ...]) -> None:
    failure = fail(*pieces)[1]
    assert type(failure) is Truncated
    assert "before its first event" in failure.message


def test_a_stream_without_a_finish_reason_is_truncated() -> None:
    chunks, failure = fail(TEXT, TEXT)
    assert type(failure) is Truncated
    assert len(chunks) == 2


def test_an_error_event_is_its_typed_error() -> None:
    body = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    chunks, failure = fail(TEXT, raw(body), LAST)
    assert (type(failure), failure.status, len(chunks)) == (Overloaded, 503, 1)


@pytest.mark.parametrize("list_of_one", [False, True])
def test_an_error_that_is_no_event_is_its_typed_error(list_of_one: bool) -> None:
    # As Google's own client expects it: the bare JSON of an error, line by line.
    body: Any = {
        "error": {
            "code": 429,
            "message": "Slow down.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}],
        }
    }
    bare = msgspec.json.format(msgspec.json.encode([body] if list_of_one else body), indent=2)
    for pieces in ((TEXT + bare,), (TEXT, bare, b"\n"), tuple(bytes([byte]) for byte in TEXT + bare)):
        chunks, failure = fail(*pieces)
        assert (type(failure), failure.retry_after_s, len(chunks)) == (Throttled, 3, 1)


def test_a_blocked_prompt_is_content_filtered() -> None:
    failure = fail(raw({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}))[1]
    assert (type(failure), failure.code) == (ContentFiltered, "PROHIBITED_CONTENT")


def test_a_filter_that_left_nothing_is_an_error() -> None:
    failure = fail(raw({"candidates": [{"finishReason": "SAFETY", "index": 0}]}))[1]
    assert (type(failure), failure.code) == (ContentFiltered, "SAFETY")


def test_a_filter_that_cut_the_answer_short_leaves_the_answer() -> None:
    assert choices(run(TEXT, raw({"candidates": [{"finishReason": "RECITATION"}]})))[-1] == (0, {}, "content_filter")


def test_a_finish_reason_that_is_a_failure_is_one() -> None:
    chunks, failure = fail(TEXT, raw({"candidates": [{"finishReason": "OTHER"}]}))
    assert type(failure) is ServerFailed
    assert chunks[0].body["choices"][0]["delta"]["content"] == "Pa"


@pytest.mark.parametrize(
    "body",
    [
        b"data: {\n\n",
        b"data: 7\n\n",
        b"data: []\n\n",
        b"data: \xff\n\n",
        b'data: {"candidates": 7}\n\n',
        b'data: {"candidates": [7]}\n\n',
        b'data: {"candidates": [{"content": 7}]}\n\n',
        b'data: {"candidates": [{"content": {"parts": [7]}}]}\n\n',
        b'data: {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}\n\n',
        b'data: {"candidates": [{"index": [], "content": {"parts": []}}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_an_event_that_is_no_response_is_malformed(body: bytes) -> None:
    chunks, failure = fail(TEXT, body, LAST)
    assert (type(failure), len(chunks)) == (Malformed, 1)


def test_nothing_is_said_after_the_failure() -> None:
    decoder = GeminiDialect().stream_decoder("chat")
    decoder.feed(b"data: 7\n\n")
    assert decoder.ended
    assert decoder.feed(LAST) == []


def test_a_chunk_that_finishes_is_told_only_at_the_true_end() -> None:
    decoder = GeminiDialect().stream_decoder("chat")
    assert all(choice["finish_reason"] is None for c in decoder.feed(LAST) for choice in c.body["choices"])
    assert not decoder.ended


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_chunks_are_the_same_wherever_the_bytes_are_cut(end: bytes) -> None:
    call = {"functionCall": {"name": "f", "args": {"stadt": "Köln 🜲"}}}
    stream = event({"text": "Grüße\n"}, end=end) + event(call, reason="STOP", end=end, usageMetadata=usage(1, 2))
    whole = run(stream)
    for cut in range(len(stream) + 1):
        assert run(stream[:cut], stream[cut:]) == whole
    assert run(*(bytes([byte]) for byte in stream)) == whole


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_chunks_or_a_typed_error(data: bytes, after: bool) -> None:
    decoder = GeminiDialect().stream_decoder("chat")
    if after:
        decoder.feed(TEXT)
    decoder.feed(b"data: " + data + b"\n\n")
    with contextlib.suppress(Malformed, Truncated):
        assert decoder.finish()


def test_null_in_every_event_is_absent() -> None:
    nulls = {"finishReason": None, "logprobsResult": None, "index": None, "safetyRatings": None}
    events = [
        raw({"candidates": [{"content": {"parts": [{"text": text, "thought": None}]}, **nulls}], "usageMetadata": None})
        for text in ("Pa", "ris")
    ]
    last = raw({"candidates": [{"content": None, **nulls, "finishReason": "STOP"}], "promptFeedback": None})
    chunks = run(*events, last)
    assert "".join(chunk.text for chunk in chunks) == "Paris"
    assert choices(chunks)[-1][2] == "stop"


def test_a_finish_reason_that_is_not_known_keeps_what_came() -> None:
    assert choices(run(TEXT, raw({"candidates": [{"finishReason": "SOMETHING_NEW"}]})))[-1] == (0, {}, "something_new")
    assert isinstance(fail(raw({"candidates": [{"finishReason": "SOMETHING_NEW"}]}))[1], ServerFailed)
