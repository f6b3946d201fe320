"""Streams of typed events. Events are written from OpenAI's API reference: "Streaming events" of Responses, "Image
generation streaming", "Create transcription" and "Create speech"; vLLM's from its speech_to_text/protocol.py."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from engine.core.errors import ContentFiltered, InferenceError, Malformed, ServerFailed, Throttled, Truncated
from engine.core.stream import Chunk
from engine.dialects.client import StreamDecoder
from engine.dialects.openai.client import OpenAIDialect

CREATED = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}
PROGRESS = {"type": "response.in_progress", "response": {"id": "resp_1", "status": "in_progress"}}
ITEM = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}
DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Paris"}
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 3},
}
COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": [], "usage": USAGE}}
HEARD = {"type": "transcript.text.delta", "delta": "hel"}
DONE = {"type": "transcript.text.done", "text": "hello"}


def decoder(task: str) -> StreamDecoder:
    return OpenAIDialect(lambda: 0.0).stream_decoder(task)


def event(body: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (body if isinstance(body, bytes) else msgspec.json.encode(body)) + b"\n\n"


def run(task: str, *pieces: bytes) -> list[Chunk]:
    """All the chunks. Raises what `finish` raises."""
    made = decoder(task)
    chunks = [chunk for piece in pieces for chunk in made.feed(piece)]
    return chunks + made.finish()


def fail(task: str, *pieces: bytes) -> tuple[list[Chunk], InferenceError]:
    """The chunks before the failure, and the failure."""
    made = decoder(task)
    chunks = [chunk for piece in pieces for chunk in made.feed(piece)]
    with pytest.raises(InferenceError) as caught:
        made.finish()
    return chunks, caught.value


def test_events_of_a_response_come_as_they_are_and_the_last_one_ends_them() -> None:
    made = decoder("response")
    events = [CREATED, PROGRESS, ITEM, DELTA, COMPLETED]
    chunks = made.feed(b"".join(event(body, body["type"]) for body in events))
    assert [chunk.body for chunk in chunks] == events
    assert made.ended
    assert made.finish() == []
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (9, 5, 4, 3)


def test_what_is_said_before_the_answer_waits_for_it() -> None:
    made = decoder("response")
    assert made.feed(event(CREATED) + event(PROGRESS)) == []
    assert [chunk.body for chunk in made.feed(event(ITEM))] == [CREATED, PROGRESS, ITEM]


def test_bytes_may_come_one_by_one() -> None:
    data = b"".join(map(event, [CREATED, DELTA, COMPLETED]))
    assert [chunk.body for chunk in run("response", *(bytes((byte,)) for byte in data))] == [CREATED, DELTA, COMPLETED]


def test_an_incomplete_response_has_ended() -> None:
    response = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    last = {"type": "response.incomplete", "response": response}
    assert run("response", event(DELTA), event(last))[-1].body == last


@pytest.mark.parametrize(
    ("task", "pieces"),
    [
        ("response", [CREATED]),
        ("response", [CREATED, DELTA, {"type": "response.output_text.done", "text": "Paris"}]),
        ("transcription", [HEARD]),
        ("image", [{"type": "image_generation.partial_image", "b64_json": "AA=="}]),
        ("response", []),
    ],
)
def test_a_stream_without_the_event_that_ends_it_is_truncated(task: str, pieces: list[Any]) -> None:
    _, failure = fail(task, *map(event, pieces))
    assert isinstance(failure, Truncated)


def test_done_alone_does_not_end_a_response() -> None:
    chunks, failure = fail("response", event(DELTA), event(b"[DONE]"))
    assert len(chunks) == 1
    assert isinstance(failure, Truncated)


def test_only_the_last_empty_line_may_be_lost() -> None:
    chunks = run("response", event(DELTA), event(COMPLETED).rstrip())
    assert chunks[-1].body == COMPLETED
    assert chunks[-1].usage is not None
    _, failure = fail("response", event(DELTA), event(COMPLETED)[:-30])
    assert isinstance(failure, Truncated)


@pytest.mark.parametrize(
    ("body", "name", "kind"),
    [
        ({"type": "error", "code": "server_error", "message": "oops", "param": None}, "error", ServerFailed),
        ({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}}, None, Throttled),
        ({"error": {"message": "oops", "code": 500}}, None, ServerFailed),
        (b"Internal error", "error", ServerFailed),
        (
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
            },
            None,
            ServerFailed,
        ),
        ({"type": "response.failed"}, None, Malformed),
        (b"{nonsense", None, Malformed),
        ([1], None, Malformed),
        ({"no": "type"}, None, Malformed),
    ],
)
def test_an_error_in_the_middle_ends_it_and_keeps_what_came(body: Any, name: str | None, kind: type) -> None:
    chunks, failure = fail("response", event(CREATED) + event(DELTA) + event(body, name) + event(COMPLETED))
    assert [chunk.body for chunk in chunks] == [CREATED, DELTA]
    assert isinstance(failure, kind)


def test_an_error_before_the_answer_leaves_no_chunk_so_that_it_can_be_tried_again() -> None:
    broken = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}}
    chunks, failure = fail("response", event(CREATED), event(PROGRESS), event(broken))
    assert chunks == []
    assert failure.retryable


def test_a_withheld_response_is_content_filtered_unless_something_was_said() -> None:
    held = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []}
    last = {"type": "response.incomplete", "response": held}
    assert isinstance(fail("response", event(last))[1], ContentFiltered)
    assert run("response", event(DELTA), event(last))[-1].body == last


def test_the_events_name_stands_for_a_type_that_is_missing() -> None:
    chunks = run("speech", event({"audio": "AA=="}, "speech.audio.delta"), event({}, "speech.audio.done"))
    assert [chunk.body for chunk in chunks] == [
        {"type": "speech.audio.delta", "audio": "AA=="},
        {"type": "speech.audio.done"},
    ]


def test_pictures_end_with_their_stream_for_there_may_be_several() -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0}
    last = {"type": "image_generation.completed", "b64_json": "BB==", "usage": {"input_tokens": 3, "output_tokens": 8}}
    chunks = run("image", *map(event, [partial, last, last]))
    assert [chunk.body for chunk in chunks] == [partial, last, last]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == 8


@pytest.mark.parametrize("tail", [b"", event(b"[DONE]")])
def test_a_transcript_in_pieces(tail: bytes) -> None:
    done = {**DONE, "usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 1}}
    chunks = run("transcription", event(HEARD), event(done) + tail)
    assert [chunk.body for chunk in chunks] == [HEARD, done]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.input_tokens == 3


def piece(text: str | None, **fields: Any) -> dict[str, Any]:
    choices = [] if text is None else [{"delta": {"content": text}, "finish_reason": None}]
    return {"id": "trsc-1", "object": "transcription.chunk", "created": 1, "model": "m", "choices": choices, **fields}


def test_vllms_transcript_gets_openais_form() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    chunks = run(
        "transcription", *map(event, [piece(""), piece("hel"), piece("lo"), piece(None, usage=usage), b"[DONE]"])
    )
    assert [chunk.body for chunk in chunks] == [HEARD, {"type": "transcript.text.delta", "delta": "lo"}, DONE]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.input_tokens == 7


def test_vllms_transcript_without_done_is_truncated() -> None:
    assert isinstance(fail("transcription", event(piece("hel")))[1], Truncated)


@pytest.mark.parametrize("pieces", [[b"ID3\x04", b"sound"], [b"I", b"D3\x04sound"], [b"ID3"]])
def test_sound_becomes_events(pieces: list[bytes]) -> None:
    chunks = run("speech", *pieces)
    assert chunks[-1].body == {"type": "speech.audio.done"}
    assert b"".join(base64.b64decode(chunk.body["audio"]) for chunk in chunks[:-1]) == b"".join(pieces)


def test_speech_as_events_that_come_byte_by_byte() -> None:
    done = {"type": "speech.audio.done", "usage": {"input_tokens": 4, "output_tokens": 90, "total_tokens": 94}}
    data = event({"type": "speech.audio.delta", "audio": "AA=="}) + event(done)
    chunks = run("speech", *(bytes((byte,)) for byte in data))
    assert [chunk.body["type"] for chunk in chunks] == ["speech.audio.delta", "speech.audio.done"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == 90


def test_no_sound_at_all_is_truncated() -> None:
    assert isinstance(fail("speech")[1], Truncated)


def test_an_event_has_a_largest_size() -> None:
    _, failure = fail("image", b"data: " + b"x" * (17 * 1024 * 1024))
    assert isinstance(failure, Malformed)
    assert "more than" in failure.message
