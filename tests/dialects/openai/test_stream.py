from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ContentFiltered, InferenceError, Malformed, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.codecs.sse import MAX_EVENT_BYTES
from engine.dialects.openai.stream import OpenAIStreamDecoder
from engine.schemas.provider import StreamEnd
from tests.servers.replies import chunk, error, usage_chunk

DONE = b"data: [DONE]\n\n"


def event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


STOP = event(chunk(None, "stop"))


def run(*pieces: bytes, task: str = "chat", end: StreamEnd = "finish") -> list[Chunk]:
    """All the chunks. Raises what `finish` raises."""
    decoder = OpenAIStreamDecoder(task, lambda: 0.0, end=end)
    return [each for piece in pieces for each in decoder.feed(piece)] + decoder.finish()


def fail(*pieces: bytes, task: str = "chat") -> tuple[list[Chunk], InferenceError]:
    """The chunks before the failure, and the failure."""
    decoder = OpenAIStreamDecoder(task, lambda: 0.0)
    chunks = [each for piece in pieces for each in decoder.feed(piece)]
    with pytest.raises(InferenceError) as caught:
        decoder.finish()
    return chunks, caught.value


def test_chunks_come_as_they_are_and_done_ends_them() -> None:
    bodies = [chunk(""), chunk("Pa"), chunk("ris"), chunk(None, "stop")]
    decoder = OpenAIStreamDecoder("chat")
    assert [each.body for each in decoder.feed(b"".join(map(event, bodies)))] == bodies
    assert not decoder.ended
    assert decoder.feed(DONE) == []
    assert decoder.ended
    decoder.finish()


def test_usage_comes_with_the_chunk_that_carries_it() -> None:
    chunks = run(event(chunk("x")), STOP, event(usage_chunk(7, 2)), DONE)
    assert [each.usage for each in chunks] == [None, None, Usage(7, 2)]


def test_a_usage_chunk_that_nobody_asked_for_is_folded_into_the_end_of_the_answer() -> None:
    decoder = OpenAIStreamDecoder("chat", show_usage=False)
    data = event(chunk("x")) + event(chunk(None, "stop")) + event(usage_chunk(7, 2)) + DONE
    early = decoder.feed(data)
    assert [each.body for each in early] == [chunk("x")]
    (last,) = decoder.finish()
    assert (last.body, last.usage) == (chunk(None, "stop"), Usage(7, 2))


def test_the_end_of_one_choice_does_not_hold_back_another() -> None:
    decoder = OpenAIStreamDecoder("chat", show_usage=False)
    other = {**chunk("y"), "choices": [{"index": 1, "delta": {"content": "y"}, "finish_reason": None}]}
    assert [each.body for each in decoder.feed(event(chunk(None, "stop")) + event(other))] == [
        chunk(None, "stop"),
        other,
    ]


def test_groqs_own_place_for_usage_is_read() -> None:
    last = chunk(None, "stop", x_groq={"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert run(event(chunk("x", x_groq={"id": "req_1"})), event(last), DONE)[-1].usage == Usage(3, 1)


def test_keep_alives_are_no_chunks() -> None:
    assert len(run(b": OPENROUTER PROCESSING\n\n", b"data:\n\n", event(chunk("x", "stop")), b"\n\n", DONE)) == 1


def test_nothing_after_done_is_read() -> None:
    assert len(run(event(chunk("x", "stop")) + DONE + b"data: {broken\n\n")) == 1


def test_done_without_its_empty_line_is_the_end() -> None:
    assert len(run(event(chunk("x", "stop")) + b"data: [DONE]", end="both")) == 1
    assert len(run(event(chunk("x", "stop")) + b"data: [DONE]\n", end="both")) == 1


def test_an_end_without_a_finish_reason_is_truncated() -> None:
    chunks, failure = fail(event(chunk("x")))
    assert len(chunks) == 1
    assert isinstance(failure, Truncated)


choices = st.integers(1, 3)
TERMINATORS = [b"", DONE, b"data: [DONE]", b"data:[DONE]\n\n", b"data:  [DONE] \n\n", b"data: [DONE]\t\n\n"]


def choice(index: int, text: str | None, reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    return event({**chunk(), "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})


@given(choices, choices, st.sampled_from(TERMINATORS), st.sampled_from(["finish", "done", "both"]), st.booleans())
def test_an_end_is_what_the_knob_says(
    begun: int, finished: int, terminator: bytes, end: StreamEnd, usage: bool
) -> None:
    stream = b"".join(choice(index, "x") for index in range(begun))
    stream += b"".join(choice(index, None, "stop") for index in range(min(begun, finished)))
    stream += (event(usage_chunk()) if usage else b"") + terminator
    whole = {
        "finish": finished >= begun,
        "done": bool(terminator),
        "both": finished >= begun and bool(terminator),
    }[end]
    if whole:
        assert "".join(each.text for each in run(stream, end=end)) == "x" * (1 if begun == 1 else begun)
    else:
        decoder = OpenAIStreamDecoder("chat", lambda: 0.0, end=end)
        decoder.feed(stream)
        with pytest.raises(Truncated):
            decoder.finish()


def test_done_without_finish_reason_names_the_knob() -> None:
    assert "provider.stream_end=done" in fail(event(chunk("x")), DONE)[1].message


def test_an_event_cut_after_the_finish_reason_is_truncated() -> None:
    assert isinstance(fail(event(chunk("x", "stop")) + event(usage_chunk())[:-20])[1], Truncated)


NOTHING = [
    b"{}", b"null", b'{"choices": null}', b'{"choices": {}}', b'{"choices": []}', b'{"id": "x", "object": ""}', b"",
    b'{"id":"","object":"","created":0,"model":"","prompt_annotations":[{"prompt_index":0}]}', b'{"type": "ping"}',
    b'{"error": null}', b'{"error": {}, "choices": null, "usage": null}',
    b'{"choices": [], "usage": null, "x_groq": 5}',
]  # fmt: skip
nothings = st.sampled_from(
    [b"data: " + body + b"\n\n" for body in NOTHING]
    + [b"event: ping\ndata: " + body + b"\n\n" for body in (*NOTHING, b"2026-12-01T00:00:00Z", b"5", b"[]", b'"x"')]
    + [b": keep-alive\n\n", b"event: heartbeat\n\n"]
)


@given(st.lists(nothings, max_size=3), st.lists(nothings, max_size=3), st.lists(nothings, max_size=3), st.booleans())
def test_events_that_hold_nothing_change_nothing(
    before: list[bytes], between: list[bytes], after: list[bytes], done: bool
) -> None:
    answer = [event(chunk("Par")), *between, event(chunk("is", "stop")), event(usage_chunk(7, 2))]
    chunks = run(*before, *answer, *after, DONE if done else b"")
    assert "".join(each.text for each in chunks) == "Paris"
    assert [each.usage for each in chunks if each.usage] == [Usage(7, 2)]


def test_usage_without_choices_is_read() -> None:
    body = {"id": "x", "object": "chat.completion.chunk", "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    (last,) = run(event(chunk("x", "stop")), event(body), DONE)[1:]
    assert (last.usage, last.body["choices"]) == (Usage(7, 2), [])


@pytest.mark.parametrize("delta", [[], None, {}, "", False])
@pytest.mark.parametrize("reason", [None, {}, "", [], False])
def test_what_is_empty_is_absent_in_a_choice(delta: Any, reason: Any) -> None:
    odd = {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
    chunks = run(event(chunk("x")), event(odd), STOP, DONE)
    assert chunks[1].body["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


def test_a_finish_reason_that_is_not_known_keeps_the_answer() -> None:
    assert run(event(chunk("x")), event(chunk(None, "eos_token_hit")))[0].text == "x"


def test_an_event_cut_by_the_end_is_truncated() -> None:
    _, failure = fail(event(chunk("x")) + event(chunk("y"))[:-20])
    assert isinstance(failure, Truncated)


def test_no_bytes_at_all_are_truncated() -> None:
    assert isinstance(fail()[1], Truncated)


def test_done_without_any_choice_is_malformed() -> None:
    assert isinstance(fail(DONE)[1], Malformed)
    assert isinstance(fail(event(usage_chunk()), DONE)[1], Malformed)


@pytest.mark.parametrize(
    "payload",
    [
        b"{broken",
        b"42",
        b"[]",
        b'{"choices": "x"}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": [1]}',
        b'{"choices": [{"x": "\xff"}]}',
        b"hi",
    ],
)
def test_an_event_that_is_no_chunk_is_malformed_and_keeps_the_chunks_before_it(payload: bytes) -> None:
    chunks, failure = fail(event(chunk("x")) + b"data: " + payload + b"\n\n" + event(chunk("y")) + DONE)
    assert len(chunks) == 1
    assert isinstance(failure, Malformed)


def test_an_event_above_the_limit_is_malformed() -> None:
    piece = b"x" * (1 << 20)
    _, failure = fail(event(chunk("x")), b"data: ", *([piece] * (MAX_EVENT_BYTES // len(piece) + 1)))
    assert isinstance(failure, Malformed)
    assert str(MAX_EVENT_BYTES) in failure.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error("The server had an error", None, "server_error"), "server"),
        (error("Rate limit reached, try again in 3s", "rate_limit_exceeded"), "throttled"),
        ({"error": "Request failed during generation", "error_type": "generation"}, "server"),
        ({**chunk(None, "error"), "error": {"code": 502, "message": "Provider disconnected"}}, "server"),
        ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, "invalid_request"),
    ],
)
def test_an_error_in_the_middle_is_its_typed_error_and_keeps_the_chunks_before_it(body: Any, kind: str) -> None:
    chunks, failure = fail(event(chunk("x")) + event(body) + DONE)
    assert len(chunks) == 1
    assert failure.kind == kind


def test_an_error_in_the_middle_carries_its_hint() -> None:
    assert fail(event(error("Rate limit reached, try again in 3s", "rate_limit_exceeded")))[1].retry_after_s == 3


@pytest.mark.parametrize("data", [b'{"error": {"message": "boom"}}', b'{"message": "boom"}', b"boom"])
def test_an_event_named_error_is_an_error(data: bytes) -> None:
    _, failure = fail(event(chunk("x")) + b"event: error\ndata: " + data + b"\n\n")
    assert failure.kind == "server"
    assert "boom" in failure.message


def test_a_finish_reason_that_is_a_failure_is_one() -> None:
    chunks, failure = fail(event(chunk("x")), event(chunk(None, "insufficient_system_resource")), DONE)
    assert (len(chunks), failure.kind) == (1, "overloaded")


def test_a_filter_that_left_nothing_is_an_error() -> None:
    _, failure = fail(event(chunk("")), event(chunk(None, "content_filter")), DONE)
    assert isinstance(failure, ContentFiltered)


def test_a_filter_that_cut_the_answer_short_leaves_the_answer() -> None:
    assert len(run(event(chunk("Some")), event(chunk(None, "content_filter")), DONE)) == 2


def test_completions_stream_their_text() -> None:
    part = {**chunk(), "choices": [{"index": 0, "text": "Par", "finish_reason": None}]}
    last = {**chunk(), "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
    assert run(event(part), event(last), DONE, task="completion")[0].body == part


@pytest.mark.parametrize(
    "deltas",
    [
        [
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        ],
        [{"audio": {"id": "audio_1"}}, {"audio": {"data": "AAAA"}}, {"audio": {"transcript": "hi"}}],
        [{"reasoning_content": "Let me think."}, {"content": "Paris."}],
        [{"refusal": "I can't."}],
    ],
    ids=["parallel tool calls", "sound", "reasoning", "refusal"],
)
def test_deltas_of_every_kind_come_as_they_are(deltas: list[dict[str, Any]]) -> None:
    bodies = [{**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    # A filter at the end leaves what came: each kind is something of an answer.
    last = chunk(None, "content_filter")
    assert [each.body for each in run(*map(event, bodies), event(last), DONE)] == [*bodies, last]


@given(st.lists(st.text(), min_size=1, max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_chunks_are_the_same_however_the_bytes_are_cut(words: list[str], end: bytes, data: st.DataObject) -> None:
    bodies = [chunk(word.encode("utf-8", "replace").decode()) for word in words] + [chunk(None, "stop")]
    stream = (b"".join(map(event, bodies)) + event(usage_chunk()) + DONE).replace(b"\n", end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [each.body for each in run(*pieces)] == [*bodies, usage_chunk()]
