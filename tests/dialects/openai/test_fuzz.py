"""Bytes that no provider and no client should send: typed errors, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.task_table import having
from engine.dialects.openai.client import OpenAIDialect
from engine.dialects.openai.server import PATHS, OpenAIServerDialect

pytestmark = pytest.mark.slow

FIELDS = st.sampled_from(
    [
        "type", "response", "error", "usage", "output", "status", "data", "text", "choices", "delta", "audio",
        "results",
        "input", "prompt", "file", "image", "stream", "model", "incomplete_details", "reason", "b64_json", "message",
        "response_format", "stream_format", "text_1", "text_2", "index", "score", "input_tokens_details",
    ]
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "response.completed", "response.failed", "response.created", "error", "incomplete", "content_filter", "failed",
        "transcript.text.done", "speech.audio.done", "image_generation.completed", "sse", "srt", "message", "",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False) | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(FIELDS, VALUES, max_size=6)
OPERATIONS = st.sampled_from(sorted(OpenAIDialect.tasks))
STREAMED = st.sampled_from(["chat", "completion", *having("ends")])
KINDS = st.sampled_from(["application/json", "text/plain", "audio/mpeg", "text/event-stream", ""])


@given(OPERATIONS, BODIES, KINDS)
@settings(max_examples=100)
def test_a_reply_is_an_answer_or_a_typed_error(task: str, body: Any, kind: str) -> None:
    with suppress(InferenceError):
        OpenAIDialect(lambda: 0.0).decode(task, 200, {"content-type": kind}, msgspec.json.encode(body))


@given(STREAMED, st.lists(BODIES | st.binary(max_size=20), max_size=6), st.booleans())
@settings(max_examples=100)
def test_a_stream_ends_or_fails_in_words(task: str, events: list[Any], done: bool) -> None:
    decoder = OpenAIDialect(lambda: 0.0).stream_decoder(task)
    for event in events:
        decoder.feed(b"data: " + (event if type(event) is bytes else msgspec.json.encode(event)) + b"\n\n")
    if done:
        decoder.feed(b"data: [DONE]\n\n")
    with suppress(InferenceError):
        decoder.finish()


@given(OPERATIONS, BODIES, st.booleans())
@settings(max_examples=100)
def test_a_body_is_a_call_or_refused(task: str, body: dict[str, Any], stream: bool) -> None:
    with suppress(InvalidRequest):
        OpenAIDialect().encode(task, body, model="m", stream=stream)


@given(st.sampled_from(sorted(PATHS)), BODIES)
@settings(max_examples=100)
def test_a_clients_json_is_a_request_or_refused(path: str, body: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        OpenAIServerDialect().read(path, {}, {"content-type": "application/json"}, msgspec.json.encode(body))


PART = st.tuples(
    st.sampled_from(
        ["file", "image", "image[]", "image[a]", "n", "stream", "a[b][c]", "a[b]", "a", "include[]", "[]", ""]
    ),
    st.booleans(),
    st.sampled_from([b"x", b"true", b"1", b"{", b"\xff", b""]),
)


@given(
    st.sampled_from(["/v1/images/edits", "/v1/audio/transcriptions"]), st.lists(PART, max_size=6), st.binary(max_size=9)
)
@settings(max_examples=100)
def test_a_clients_form_is_a_request_or_refused(path: str, parts: list[tuple[str, bool, bytes]], junk: bytes) -> None:
    content = b""
    for name, file, value in parts:
        filename = b'; filename="f"' if file else b""
        content += (
            b'--x\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n' % (name.encode(), filename) + value + b"\r\n"
        )
    with suppress(InvalidRequest):
        OpenAIServerDialect().read(
            path, {}, {"content-type": "multipart/form-data; boundary=x"}, content + junk + b"--x--"
        )
