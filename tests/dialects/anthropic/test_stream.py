"""Anthropic's streams: events as its guide "Streaming messages" has them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.anthropic.stream import AnthropicStreamDecoder
from engine.dialects.codecs.sse import MAX_EVENT_BYTES

HEAD = {"id": "msg_1", "object": "chat.completion.chunk", "created": 42, "model": "claude-haiku-5-5"}


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + b"data: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


def delta(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def block(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def end(reason: str = "end_turn", usage: dict[str, Any] | None = None, **fields: Any) -> bytes:
    said = {"stop_reason": reason, "stop_sequence": None, **fields}
    return event("message_delta", delta=said, usage=usage or {"output_tokens": 15})


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude-haiku-5-5",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
)
STOP = event("message_stop")
TEXT = block(0, "text", text="") + delta(0, "text_delta", text="Par") + delta(0, "text_delta", text="is.") + closed(0)
PING = event("ping")
PLAIN = START + PING + TEXT + end() + STOP


def decode(*pieces: bytes, show_usage: bool = True) -> tuple[list[Chunk], InferenceError | None]:
    """The chunks, and the failure after them."""
    decoder = AnthropicStreamDecoder(lambda: 42.0, show_usage=show_usage)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    try:
        return [*chunks, *decoder.finish()], None
    except InferenceError as error:
        return chunks, error


def deltas(*pieces: bytes) -> list[dict[str, Any]]:
    chunks, failure = decode(START, *pieces, end(), STOP, show_usage=False)
    assert failure is None
    return [each.body["choices"][0]["delta"] for each in chunks][1:-1]


def kind(*pieces: bytes) -> str | None:
    failure = decode(*pieces)[1]
    return failure.kind if failure else None


def test_a_text_streams_as_chunks_and_its_usage_comes_last() -> None:
    chunks, failure = decode(PLAIN)
    assert failure is None
    assert [each.body for each in chunks] == [
        {**HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {**HEAD, "choices": [{"index": 0, "delta": {"content": "Par"}, "finish_reason": None}]},
        {**HEAD, "choices": [{"index": 0, "delta": {"content": "is."}, "finish_reason": None}]},
        {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {
            **HEAD,
            "choices": [],
            "usage": {
                "prompt_tokens": 30,
                "completion_tokens": 15,
                "total_tokens": 45,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
            },
        },
    ]
    assert chunks[-1].usage == Usage(30, 15, 5)


def test_usage_that_nobody_asked_for_comes_with_the_end_of_the_answer() -> None:
    chunks, _ = decode(PLAIN, show_usage=False)
    assert (chunks[-1].body["choices"][0]["finish_reason"], chunks[-1].usage) == ("stop", Usage(30, 15, 5))


def test_counts_of_the_end_replace_those_of_the_start_and_missing_ones_do_not() -> None:
    usage = {"input_tokens": 26, "cache_read_input_tokens": None, "output_tokens": 3}
    assert decode(START, TEXT, end(usage=usage), STOP)[0][-1].usage == Usage(31, 3, 5)


def test_arguments_of_parallel_calls_stream_under_their_index() -> None:
    assert deltas(
        block(0, "text", text="Let me see."),
        closed(0),
        block(1, "tool_use", id="toolu_1", name="f", input={}),
        delta(1, "input_json_delta", partial_json=""),
        delta(1, "input_json_delta", partial_json='{"a":'),
        delta(1, "input_json_delta", partial_json="1}"),
        closed(1),
        block(2, "tool_use", id="toolu_2", name="g", input={}),
        closed(2),
    ) == [
        {"content": "Let me see."},
        {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {"tool_calls": [{"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
    ]


def test_arguments_that_a_call_starts_with_are_kept() -> None:
    said = deltas(block(0, "tool_use", id="t", name="f", input={"a": 1}), closed(0))
    assert said[-1] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}


def test_thoughts_stream_as_reasoning_and_end_with_their_signature() -> None:
    assert deltas(
        block(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="H"),
        delta(0, "thinking_delta", thinking="m."),
        delta(0, "signature_delta", signature="c2ln"),
        closed(0),
        block(1, "redacted_thinking", data="ZGF0YQ=="),
        closed(1),
    ) == [
        {"reasoning_content": "H"},
        {"reasoning_content": "m."},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "ZGF0YQ=="}]},
    ]


def test_the_stop_sequence_that_was_met_is_told() -> None:
    chunks, _ = decode(START, TEXT, end("stop_sequence", stop_sequence="END"), STOP, show_usage=False)
    choice = chunks[-1].body["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


def test_events_and_blocks_that_are_not_known_yet_are_passed_over() -> None:
    new = event("new_event", x=1) + block(0, "server_tool_use", id="s", name="web_search", input={})
    new += delta(0, "input_json_delta", partial_json="{}") + delta(0, "new_delta", x=1) + closed(0)
    assert deltas(new) == []


@given(st.lists(st.integers(1, len(PLAIN) - 1), max_size=8))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(PLAIN)]
    pieces = [PLAIN[start:stop] for start, stop in pairwise(places)]
    assert decode(*pieces) == decode(PLAIN)


def test_a_stream_may_come_byte_by_byte_with_any_line_ending() -> None:
    stream = PLAIN.replace(b"is.", "ïs 🗼".encode())
    for ending in (b"\n", b"\r\n", b"\r"):
        told = stream.replace(b"\n", ending)
        assert decode(*(told[place : place + 1] for place in range(len(told)))) == decode(stream)


@pytest.mark.parametrize("length", [0, 20, len(START), len(START + TEXT), len(PLAIN) - len(STOP), len(PLAIN) - 12])
def test_a_stream_without_its_end_is_truncated_and_keeps_its_chunks(length: int) -> None:
    chunks, failure = decode(PLAIN[:length])
    assert failure is not None
    assert failure.kind == "truncated"
    whole = decode(PLAIN)[0]
    assert chunks == whole[: len(chunks)]
    assert not any(choice["finish_reason"] for each in chunks for choice in each.body["choices"])


def test_a_last_empty_line_that_is_lost_costs_nothing() -> None:
    assert decode(PLAIN[:-2]) == decode(PLAIN)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "throttled"),
        ("api_error", "server"),
        ("timeout_error", "timeout"),
        ("authentication_error", "auth"),
        ("billing_error", "quota_exhausted"),
        ("invalid_request_error", "invalid_request"),
    ],
)
def test_an_error_event_is_its_typed_error_after_the_chunks_before_it(name: str, word: str) -> None:
    error = event("error", error={"type": name, "message": "It broke."}, request_id="req_9")
    chunks, failure = decode(START + TEXT + error + STOP)
    assert failure is not None
    assert (failure.kind, failure.code, failure.provider_request_id) == (word, name, "req_9")
    assert "It broke." in failure.message
    assert len(chunks) == 3


def test_a_refusal_is_filtered_content() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": None}
    _, failure = decode(START, TEXT, end("refusal", stop_details=details), STOP)
    assert failure is not None
    assert (failure.kind, failure.code) == ("content_filtered", "refusal")
    assert "(bio)" in failure.message


@pytest.mark.parametrize(
    "stream",
    [
        START + b"data: {\n\n",
        START + b"data: [1]\n\n",
        START + b"data: {}\n\n",
        START + b"data: \xff\n\n",
        START + b"data: " + b"[" * 100_000 + b"\n\n",
        TEXT,
        START + delta(3, "input_json_delta", partial_json="{}"),
        START + event("content_block_delta", index=0, delta=7),
        START + block(0, "thinking") + delta(0, "thinking_delta", thinking=7),
        START + block(0, "tool_use", name="f"),
        START + TEXT + STOP,
        STOP,
    ],
)
def test_what_is_not_as_documented_is_malformed(stream: bytes) -> None:
    assert kind(stream) == "malformed"


def test_an_event_is_bounded() -> None:
    assert kind(START, b"data: " + b"x" * (MAX_EVENT_BYTES + 1)) == "malformed"


def test_nothing_comes_after_the_end() -> None:
    decoder = AnthropicStreamDecoder()
    decoder.feed(PLAIN)
    assert decoder.ended
    assert decoder.feed(PLAIN) == []
