from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import (
    FAILURES,
    AuthFailed,
    InferenceError,
    InvalidRequest,
    Overloaded,
    QuotaExhausted,
    Throttled,
    Truncated,
)
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.openai.client import OpenAIDialect
from engine.dialects.openai.server import ERRORS, OpenAIServerDialect
from engine.dialects.server import ClientCall
from tests.servers.replies import chunk, completion, usage_chunk

CLIENT, SERVER = OpenAIDialect(lambda: 0.0), OpenAIServerDialect()
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PATHS = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "embedding": "/v1/embeddings",
    "rerank": "/v1/rerank",
}


def read(task: str, body: Any, headers: dict[str, str] | None = None) -> ClientCall:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return SERVER.read(PATHS[task], {}, headers or {}, content)


def replied(call: ClientCall, body: dict[str, Any]) -> Any:
    return msgspec.json.decode(SERVER.reply(call, body))


def streamed(call: ClientCall, *chunks: Chunk) -> bytes:
    encoder = SERVER.stream_encoder(call)
    return b"".join(map(encoder.chunk, chunks)) + encoder.end()


def decoded(stream: bytes, cuts: list[int] | None = None, show_usage: bool = True) -> list[Chunk]:
    """The chunks that our own client reads from a stream."""
    decoder = CLIENT.stream_decoder("chat", show_usage=show_usage)
    edges = sorted(cuts or [])
    pieces = [stream[start:stop] for start, stop in zip([0, *edges], [*edges, len(stream)], strict=True)]
    return [each for piece in pieces for each in decoder.feed(piece)] + decoder.finish()


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_request_is_taken_as_it_is() -> None:
    body = {**CHAT, "tools": [{"type": "function"}], "vendor_field": [None, 2.5], "stream_options": {"x": 1}}
    call = read("chat", {**body, "stream": True})
    assert (call.task, call.body, call.stream, call.model) == ("chat", body, True, "m")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_is_read_at_vllms_and_coheres_paths(path: str) -> None:
    body = {"query": "q", "documents": ["a"], "top_n": 1}
    assert SERVER.routes["POST", path] == "rerank"
    assert SERVER.read(path, {}, {}, msgspec.json.encode(body)).body == body


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer  sk-1 "}, "sk-1"),
        ({"api-key": "azure"}, "azure"),
        ({"authorization": "Basic eDp5"}, None),
        ({"authorization": "Bearer "}, None),
        ({}, None),
    ],
)
def test_the_clients_key_is_found(headers: dict[str, str], key: str | None) -> None:
    assert read("chat", CHAT, headers).key == key


@pytest.mark.parametrize(
    ("task", "body", "field"),
    [
        ("chat", b"", None),
        ("chat", b"[]", None),
        ("chat", b"\xff\xfe", None),
        ("chat", b"[" * 100_000, None),
        ("chat", {"messages": "hi"}, "messages"),
        ("completion", {"prompt": 3}, "prompt"),
        ("embedding", {}, "input"),
        ("embedding", {"input": "x", "stream": True}, "stream"),
        ("rerank", {"query": "q"}, "documents"),
        ("rerank", {"documents": []}, "query"),
        ("chat", {**CHAT, "stream": "yes"}, "stream"),
        ("chat", {**CHAT, "model": 7}, "model"),
    ],
)
def test_what_is_no_request_is_refused_with_its_field(task: str, body: Any, field: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(task, body)
    status, _, content = SERVER.refusal(caught.value)
    error = msgspec.json.decode(content)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", field)


PARTS = st.one_of(
    st.text(),
    st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}), min_size=1),
    st.just([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]),
)
BODIES = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": PARTS}),
            min_size=1,
        ),
    },
    optional={
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 9999),
        "stop": st.lists(st.text(), max_size=4),
        "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.just({"type": "json_object"}),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "metadata": st.dictionaries(st.text(), st.text(), max_size=2),
    },
)


@given(BODIES)
def test_what_a_client_writes_is_what_a_server_reads(body: dict[str, Any]) -> None:
    plain = SERVER.read(PATHS["chat"], {}, {}, CLIENT.encode("chat", body, model="m", stream=False).content)
    streaming = SERVER.read(PATHS["chat"], {}, {}, CLIENT.encode("chat", body, model="m", stream=True).content)
    assert (plain.body, plain.stream) == (body, False)
    assert (streaming.body, streaming.stream) == ({**body, "stream_options": {"include_usage": True}}, True)


# -- replies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Paris."},
        {"role": "assistant", "content": "4", "reasoning_content": "2+2"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
    ],
)
def test_a_reply_comes_back_as_it_was(message: dict[str, Any]) -> None:
    body = completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    content = SERVER.reply(read("chat", CHAT), body)
    assert CLIENT.decode("chat", 200, {}, content).body == body


def test_a_reply_always_says_its_object_and_model() -> None:
    body = replied(read("rerank", {"model": "r", "query": "q", "documents": ["a"]}), {"results": []})
    assert body == {"object": "list", "model": "r", "results": []}


VECTOR = [0.5, -1.25, 3.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


@pytest.mark.parametrize("given_form", [VECTOR, PACKED])
@pytest.mark.parametrize(("form", "expected"), [("base64", PACKED), ("float", VECTOR), (None, VECTOR)])
def test_vectors_come_in_the_form_that_was_asked_for(given_form: Any, form: str | None, expected: Any) -> None:
    asked = {"input": "x", **({"encoding_format": form} if form else {})}
    body = {"object": "list", "model": "m", "data": [{"index": 0, "object": "embedding", "embedding": given_form}]}
    assert replied(read("embedding", asked), body)["data"] == [
        {"index": 0, "object": "embedding", "embedding": expected}
    ]


def test_the_models_are_listed_as_our_client_reads_them() -> None:
    assert CLIENT.models(SERVER.models(["a", "b"])) == ["a", "b"]


# -- streams -----------------------------------------------------------------------------------------------------------

STREAMING = read("chat", {**CHAT, "stream": True})
WITH_USAGE = read("chat", {**CHAT, "stream": True, "stream_options": {"include_usage": True}})


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.data())
def test_a_stream_comes_back_as_it_was_however_it_is_cut(words: list[str], data: st.DataObject) -> None:
    bodies = [chunk(word.encode("utf-8", "replace").decode()) for word in words]
    bodies += [chunk(None, "stop"), usage_chunk(7, 2)]
    stream = streamed(WITH_USAGE, *map(Chunk, bodies))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert [each.body for each in decoded(stream, cuts)] == bodies


def test_a_stream_is_the_same_cut_at_every_byte() -> None:
    stream = streamed(WITH_USAGE, Chunk(chunk("Übung ☃")), Chunk(chunk(None, "stop")), Chunk(usage_chunk()))
    assert [each.body for each in decoded(stream, list(range(len(stream))))] == [
        chunk("Übung ☃"),
        chunk(None, "stop"),
        usage_chunk(),
    ]


def test_usage_that_was_asked_for_comes_in_a_chunk_of_its_own() -> None:
    last = Chunk(chunk(None, "stop"), Usage(7, 2, 3, 1))
    found = decoded(streamed(WITH_USAGE, Chunk(chunk("x")), last))
    assert found[-1].body["choices"] == []
    assert found[-1].body["id"] == "chatcmpl-1"
    assert found[-1].usage == Usage(7, 2, 3, 1)


def test_usage_that_was_said_already_is_not_said_again() -> None:
    found = decoded(streamed(WITH_USAGE, Chunk(chunk("x", "stop")), Chunk(usage_chunk(), Usage(7, 2))))
    assert [each.usage for each in found] == [None, Usage(7, 2)]


def test_usage_that_nobody_asked_for_is_left_out() -> None:
    stream = streamed(STREAMING, Chunk(chunk("x")), Chunk(chunk(None, "stop"), Usage(7, 2)), Chunk(usage_chunk()))
    assert b"usage" not in stream


def test_a_stream_that_breaks_says_why_and_never_ends() -> None:
    encoder = SERVER.stream_encoder(STREAMING)
    stream = encoder.chunk(Chunk(chunk("x"))) + encoder.failed(Throttled("slow down, try again in 3s"))
    decoder = CLIENT.stream_decoder("chat")
    assert len(decoder.feed(stream)) == 1
    with pytest.raises(Throttled) as caught:
        decoder.finish()
    assert caught.value.retry_after_s == 3
    assert b"[DONE]" not in stream


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_every_failure_has_its_words() -> None:
    assert ERRORS.keys() == FAILURES.keys()


@pytest.mark.parametrize(
    "kind",
    [
        "throttled",
        "quota_exhausted",
        "auth",
        "invalid_request",
        "too_long",
        "content_filtered",
        "overloaded",
        "timeout",
    ],
)
def test_a_failure_that_a_client_can_act_on_is_understood_by_our_own(kind: str) -> None:
    status, headers, content = SERVER.refusal(FAILURES[kind]("because"))
    read_back = CLIENT.error(status, headers, content)
    assert read_back.kind == kind
    assert "because" in read_back.message


@pytest.mark.parametrize("error", [Truncated("cut"), *(cls("x") for cls in FAILURES.values())])
def test_every_refusal_is_an_error_with_a_status(error: InferenceError) -> None:
    status, _, content = SERVER.refusal(error)
    assert 400 <= status < 600
    assert set(msgspec.json.decode(content)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("hint_s", [0.0, 0.0204, 1.0, 61.5])
def test_the_retry_hint_is_never_shorter_than_what_was_said(hint_s: float) -> None:
    status, headers, content = SERVER.refusal(Overloaded("busy", retry_after_s=hint_s))
    assert float(headers["retry-after-ms"]) / 1000 >= hint_s
    found = CLIENT.error(status, headers, content).retry_after_s
    assert found is not None
    assert hint_s <= found <= hint_s + 1


@pytest.mark.parametrize(
    ("error", "said"), [(QuotaExhausted("x"), "false"), (AuthFailed("x"), "false"), (Throttled("x"), None)]
)
def test_a_client_is_told_when_another_try_is_no_use(error: InferenceError, said: str | None) -> None:
    assert SERVER.refusal(error)[1].get("x-should-retry") == said


def test_a_providers_own_code_is_kept() -> None:
    error = InvalidRequest("HTTP 404: no such model", code="model_not_found")
    assert msgspec.json.decode(SERVER.refusal(error)[2])["error"]["code"] == "model_not_found"


def test_a_query_in_the_path_changes_nothing() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    call = OpenAIServerDialect().read("/v1/chat/completions?api-version=preview", {}, {}, body)
    assert (call.task, call.model) == ("chat", "m")
