"""OpenAI's operations beside chat: what is sent, and what a whole reply becomes.

Bodies are written from the API reference (platform.openai.com/docs/api-reference): "Responses", "Moderations",
"Images", "Audio".
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from engine.core.errors import (
    Cancelled,
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    Malformed,
    ServerFailed,
    Throttled,
    TimedOut,
)
from engine.core.media_access import Media
from engine.dialects.codecs.multipart import read_form
from engine.dialects.openai.client import OpenAIDialect

WAV = Media(b"RIFF\x24\x00\x00\x00WAVE", "clip.wav", "audio/wav")
PNG = Media(b"\x89PNG", "cat.png", "image/png")
MP3 = b"ID3\x04sound"


@pytest.fixture
def dialect() -> OpenAIDialect:
    return OpenAIDialect(lambda: 0.0)


def decode(dialect: OpenAIDialect, task: str, body: Any, kind: str = "application/json") -> Any:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return dialect.decode(task, 200, {"content-type": kind, "x-request-id": "req_1"}, content)


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("response", "/responses"),
        ("moderation", "/moderations"),
        ("image", "/images/generations"),
        ("speech", "/audio/speech"),
    ],
)
def test_json_operations_are_passed_on(dialect: OpenAIDialect, task: str, path: str) -> None:
    body = {"input": "x", "vendor": {"a": [1, None]}}
    call = dialect.encode(task, body, model="m", stream=False)
    assert (call.method, call.path, msgspec.json.decode(call.content)) == ("POST", path, {**body, "model": "m"})


@pytest.mark.parametrize(
    ("task", "path", "body"),
    [
        ("transcription", "/audio/transcriptions", {"file": WAV, "timestamp_granularities": ["word"]}),
        ("audio-translation", "/audio/translations", {"file": WAV, "temperature": 0.5}),
        ("image-edit", "/images/edits", {"image": [PNG, PNG], "mask": PNG, "prompt": "x", "n": 2}),
        ("image-variation", "/images/variations", {"image": PNG, "n": 2, "size": "256x256"}),
    ],
)
def test_operations_with_files_go_as_forms(dialect: OpenAIDialect, task: str, path: str, body: dict[str, Any]) -> None:
    call = dialect.encode(task, body, model="m", stream=False)
    kind = call.headers["content-type"]
    fields = read_form(call.content, kind)
    assert (call.path, kind.partition(";")[0]) == (path, "multipart/form-data")
    assert ("model", "m") in fields
    names = {name for name, _ in fields}
    assert names == {"model", *(f"{name}[]" if type(value) is list else name for name, value in body.items())}


def test_a_single_picture_in_a_list_goes_alone(dialect: OpenAIDialect) -> None:
    call = dialect.encode("image-edit", {"image": [PNG], "prompt": "x"}, model="m", stream=False)
    assert ("image", PNG) in read_form(call.content, call.headers["content-type"])


def test_a_form_says_that_it_is_to_be_streamed(dialect: OpenAIDialect) -> None:
    call = dialect.encode("transcription", {"file": WAV}, model="m", stream=True)
    assert ("stream", "true") in read_form(call.content, call.headers["content-type"])


def test_groqs_address_stands_for_a_file(dialect: OpenAIDialect) -> None:
    call = dialect.encode("transcription", {"url": "https://example.com/a.wav"}, model="m", stream=False)
    assert ("url", "https://example.com/a.wav") in read_form(call.content, call.headers["content-type"])


@pytest.mark.parametrize(
    ("body", "problem"),
    [({}, "body.file: the task transcription needs a file"), ({"file": "a.wav"}, "expected the bytes of a file")],
)
def test_a_form_without_its_file_is_refused(dialect: OpenAIDialect, body: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        dialect.encode("transcription", body, model="m", stream=False)


def test_a_streamed_response_is_not_asked_for_usage_that_it_always_has(dialect: OpenAIDialect) -> None:
    call = dialect.encode("response", {"input": "x"}, model="m", stream=True)
    assert msgspec.json.decode(call.content) == {"input": "x", "model": "m", "stream": True}


@pytest.mark.parametrize("stream", [False, True])
def test_speech_is_never_asked_for_a_stream(dialect: OpenAIDialect, stream: bool) -> None:
    body = {"input": "x", "voice": "v", "stream": True}
    call = dialect.encode("speech", body, model="m", stream=stream)
    assert msgspec.json.decode(call.content) == {"input": "x", "voice": "v", "model": "m"}
    assert call.headers == {"accept": "*/*"}


def test_how_speech_is_streamed_says_nothing_about_a_whole_one(dialect: OpenAIDialect) -> None:
    body = {"input": "x", "stream_format": "sse"}
    whole = dialect.encode("speech", body, model="m", stream=False)
    streamed = dialect.encode("speech", body, model="m", stream=True)
    assert "stream_format" not in msgspec.json.decode(whole.content)
    assert msgspec.json.decode(streamed.content)["stream_format"] == "sse"


def test_a_moderation_is_not_streamed(dialect: OpenAIDialect) -> None:
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        dialect.encode("moderation", {"input": "x"}, model="m", stream=True)


def test_a_response_in_the_background_is_refused_or_dropped(dialect: OpenAIDialect) -> None:
    body = {"input": "x", "background": True}
    with pytest.raises(InvalidRequest, match=r"body\.background: .* set provider\.drop_unsupported=true"):
        dialect.encode("response", body, model="m", stream=False)
    call = dialect.encode("response", body, model="m", stream=False, drop_unsupported=True)
    assert msgspec.json.decode(call.content) == {"input": "x", "model": "m"}
    assert call.warnings[0].startswith("body.background was dropped")


# -- replies -----------------------------------------------------------------------------------------------------------


def response(**fields: Any) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Paris."}]}
    return {"id": "resp_1", "object": "response", "status": "completed", "output": [message], "error": None, **fields}


def test_a_response_comes_back_as_it_is_with_its_usage(dialect: OpenAIDialect) -> None:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    reply = decode(dialect, "response", response(usage=usage))
    assert reply.body == response(usage=usage)
    used = reply.usage
    assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens) == (9, 5, 4, 3)


def test_a_response_that_is_cut_by_its_limit_is_an_answer(dialect: OpenAIDialect) -> None:
    body = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert decode(dialect, "response", body).body == body


FILTER = {"reason": "content_filter"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "oops"}}, ServerFailed),
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}, Throttled),
        ({"status": "failed", "error": {"code": "invalid_image_format", "message": "no"}}, InvalidRequest),
        ({"status": "failed", "error": {"code": "image_content_policy_violation", "message": "no"}}, ContentFiltered),
        ({"status": "failed", "error": {"code": "vector_store_timeout", "message": "late"}}, TimedOut),
        ({"status": "failed"}, ServerFailed),
        ({"status": "cancelled"}, Cancelled),
        ({"status": "queued"}, Malformed),
        ({"status": "incomplete", "incomplete_details": FILTER, "output": []}, ContentFiltered),
        ({"output": None}, Malformed),
    ],
)
def test_a_response_that_is_no_answer_is_its_error(
    dialect: OpenAIDialect, fields: dict[str, Any], error: type[InferenceError]
) -> None:
    with pytest.raises(error):
        decode(dialect, "response", response(**fields))


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("image", {"created": 1, "data": [{"b64_json": "AA=="}, {"url": "https://example.com/1.png"}]}),
        ("image-edit", {"data": [{"b64_json": "AA=="}]}),
        ("image-variation", {"data": [{"url": "https://example.com/a.png"}]}),
        (
            "moderation",
            {"id": "modr-1", "model": "m", "results": [{"flagged": False, "categories": {"violence": False}}]},
        ),
        ("transcription", {"text": ""}),
        ("transcription", {"text": "hi", "language": "english", "duration": 1.5, "segments": [{"id": 0}]}),
        ("audio-translation", {"text": "hi"}),
    ],
)
def test_a_json_reply_comes_back_as_it_is(dialect: OpenAIDialect, task: str, body: dict[str, Any]) -> None:
    reply = decode(dialect, task, body)
    assert (reply.body, reply.provider_request_id) == (body, "req_1")


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "text/vtt", "application/x-subrip"])
def test_a_transcript_that_is_no_json_becomes_text(dialect: OpenAIDialect, kind: str) -> None:
    assert decode(dialect, "transcription", "grüß dich\n".encode(), kind).body == {"text": "grüß dich\n"}


def test_a_transcript_in_json_that_is_called_text_is_read(dialect: OpenAIDialect) -> None:
    assert decode(dialect, "transcription", b'{"text": "hi"}', "text/plain").body == {"text": "hi"}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("audio/mpeg", "mp3"),
        ("audio/wav", "wav"),
        ("audio/flac", "flac"),
        ("application/octet-stream", "mp3"),
        ("", "mp3"),
    ],
)
def test_sound_becomes_base64_with_its_format(dialect: OpenAIDialect, kind: str, form: str) -> None:
    body = decode(dialect, "speech", MP3, kind).body
    assert body["object"] == "audio.speech"
    assert base64.b64decode(body["audio"]["data"]) == MP3
    assert (body["audio"]["format"], body["audio"]["content_type"]) == (form, kind or "application/octet-stream")


@pytest.mark.parametrize(
    ("task", "body", "kind"),
    [
        ("image", {"data": []}, "application/json"),
        ("image", {"data": [{}]}, "application/json"),
        ("moderation", {"results": [{"flagged": True}]}, "application/json"),
        ("transcription", {"transcript": "hi"}, "application/json"),
        ("transcription", b"\xff\xfe", "text/plain"),
        ("speech", b"", "audio/mpeg"),
        ("speech", {"audio": {}}, "application/json"),
        ("speech", b"<html><title>Bad Gateway</title></html>", "text/html"),
        ("response", b"[]", "application/json"),
    ],
)
def test_a_reply_that_is_no_answer_is_malformed(dialect: OpenAIDialect, task: str, body: Any, kind: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(dialect, task, body, kind)
    assert (caught.value.status, caught.value.provider_request_id) == (200, "req_1")


@pytest.mark.parametrize("task", ["response", "moderation", "image", "speech", "transcription"])
def test_an_error_in_a_reply_with_status_200_is_an_error(dialect: OpenAIDialect, task: str) -> None:
    with pytest.raises(Throttled, match="slow down"):
        decode(dialect, task, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}})


# -- chat in full: nothing of it is lost ------------------------------------------------------------------------------


def test_everything_that_a_chat_can_ask_is_passed_on(dialect: OpenAIDialect) -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            },
            {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
        ],
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {}}},
        "logprobs": True,
        "top_logprobs": 3,
        "seed": 7,
        "stop": ["\n", "END"],
        "reasoning_effort": "high",
        "prediction": {"type": "content", "content": "x"},
        "guided_json": {"type": "object"},
        "structured_outputs": {"regex": "a+"},
        "metadata": {"mine": "1"},
    }
    call = dialect.encode("chat", body, model="m", stream=False)
    assert msgspec.json.decode(call.content) == {**body, "model": "m"}


def test_an_answer_in_sound_is_an_answer(dialect: OpenAIDialect) -> None:
    audio = {"id": "audio_1", "data": "AA==", "expires_at": 1, "transcript": "hi"}
    message = {"role": "assistant", "content": None, "audio": audio}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "content_filter"}]}
    assert decode(dialect, "chat", body).body == body
