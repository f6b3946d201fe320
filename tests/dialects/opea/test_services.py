from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, InvalidRequest, Malformed, Overloaded, ServerFailed
from engine.core.media_access import Media
from engine.core.stream import Chunk
from engine.dialects.opea.client import OpeaDialect
from engine.dialects.opea.server import OpeaServerDialect
from engine.dialects.server import ClientCall

CLIENT, SERVER = OpeaDialect(lambda: 0.0), OpeaServerDialect()
FILE = Media(b"hello", "a.txt", "text/plain")
LANGUAGES = {"src_lang": "Python", "tgt_lang": "Go"}


def carried(task: str, body: dict[str, Any], model: str = "m", stream: bool = False) -> ClientCall:
    """What a server reads of what a client sends."""
    call = CLIENT.encode(task, body, model=model, stream=stream)
    headers = {"content-type": "application/json", "authorization": "Bearer k", **call.headers}
    return SERVER.read(f"/v1{call.path}", {}, headers, call.content)


def answered(call: ClientCall, body: dict[str, Any]) -> dict[str, Any]:
    """What a client reads of what a server replies."""
    return CLIENT.decode(call.task, 200, {}, SERVER.reply(call, body)).body


@pytest.mark.parametrize(
    ("task", "body", "model"),
    [
        ("moderation", {"input": "x"}, "m"),
        ("retrieval", {"inputs": {"text": "q"}, "parameters": {"k": 2, "search_type": "mmr"}}, "m"),
        ("retrieval", {"inputs": {"text": "q", "embedding": [0.5]}}, "m"),
        ("translation", {"inputs": "print(1)", "parameters": LANGUAGES, "model": "codetrans"}, "codetrans"),
        ("translation", {"inputs": "hi", "parameters": LANGUAGES, "model": "translation"}, "translation"),
        ("dataprep", {"inputs": {"files": [FILE, FILE]}, "parameters": {"chunk_size": 5, "process_table": True}}, "m"),
        ("dataprep", {"inputs": {"links": ["https://example.org"]}}, "m"),
        ("dataprep", {"parameters": {"operation": "get"}}, "m"),
        ("dataprep", {"inputs": {"file_path": "all"}, "parameters": {"operation": "delete"}}, "m"),
        ("rerank", {"query": "q", "documents": ["a", "b"], "top_n": 1}, "m"),
        ("chat", {"messages": [{"role": "user", "content": "hi"}], "model": "chatqna"}, "chatqna"),
        ("chat", {"messages": [{"role": "user", "content": "hi"}], "model": "docsum", "chunk_size": 9}, "docsum"),
    ],
)
def test_a_request_comes_as_it_was_sent(task: str, body: dict[str, Any], model: str) -> None:
    call = carried(task, body, model)
    assert (call.task, call.body, call.stream, call.key) == (task, body, False, "k")


@pytest.mark.parametrize("stream", [True, False])
def test_a_megaservice_hears_whether_to_stream(stream: bool) -> None:
    assert carried("chat", {"messages": [{"role": "user", "content": "x"}]}, "codegen", stream).stream is stream


@pytest.mark.parametrize(("service", "stream"), [("chatqna", True), ("visualqna", False)])
def test_what_says_nothing_of_streaming_is_streamed_but_by_visualqna(service: str, stream: bool) -> None:
    assert SERVER.read(f"/v1/{service}", {}, {}, b'{"messages":"hi"}').stream is stream


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (("retrieval", {"inputs": "q"}), {"outputs": [{"text": "a", "metadata": {"x": 1}}, {"text": "b"}]}),
        (("translation", {"inputs": "x", "parameters": LANGUAGES}), {"outputs": [{"translation_text": "y"}]}),
        (("dataprep", {"parameters": {"operation": "get"}}), {"outputs": [{"name": "a", "id": "a"}]}),
    ],
)
def test_a_reply_comes_as_it_was_given(call: Any, body: dict[str, Any]) -> None:
    assert answered(carried(*call, model="codetrans"), body)["outputs"] == body["outputs"]


@pytest.mark.parametrize(
    "result",
    [
        {"flagged": False, "categories": {}, "category_scores": {}},
        {"flagged": True, "categories": {"Violence and Hate": True}, "category_scores": {}},
    ],
)
def test_what_a_guardrail_finds_comes_as_it_was_found(result: dict[str, Any]) -> None:
    assert answered(carried("moderation", {"input": "x"}), {"results": [result]})["results"] == [result]


def test_a_summary_is_asked_of_docsum() -> None:
    body = {"inputs": "long", "parameters": {"max_tokens": 9, "summary_type": "refine"}}
    call = CLIENT.encode("summarization", body, model="docsum", stream=False)
    assert (call.path, msgspec.json.decode(call.content)) == (
        "/docsum",
        {"type": "text", "messages": "long", "max_tokens": 9, "summary_type": "refine", "stream": False},
    )
    reply = {"choices": [{"message": {"role": "assistant", "content": "short"}}]}
    found = CLIENT.decode("summarization", 200, {}, msgspec.json.encode(reply))
    assert found.body["outputs"] == [{"summary_text": "short"}]


def test_a_translation_that_comes_as_a_stream_is_gathered() -> None:
    content = b"data: b'fmt.'\n\ndata: b'Println(1)'\n\ndata: [DONE]\n\n"
    found = CLIENT.decode("translation", 200, {"content-type": "text/event-stream"}, content)
    assert found.body["outputs"] == [{"translation_text": "fmt.Println(1)"}]
    with pytest.raises(ServerFailed):
        CLIENT.decode("translation", 200, {}, b"data: [DONE]\n\n")


def test_a_picture_is_sent_as_plain_base64() -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    call = CLIENT.encode("chat", {"messages": [{"role": "user", "content": content}]}, model="visualqna", stream=False)
    assert msgspec.json.decode(call.content)["messages"] == [
        {
            "role": "user",
            "content": [content[0], {"type": "image_url", "image_url": {"url": "iVBORw0KGgo="}}],
        }
    ]


def test_visualqna_wants_one_picture() -> None:
    with pytest.raises(InvalidRequest, match="visualqna looks at one image; got 0"):
        CLIENT.encode("chat", {"messages": [{"role": "user", "content": "x"}]}, model="visualqna", stream=False)


@pytest.mark.parametrize(
    ("task", "body", "words"),
    [
        ("moderation", {"input": ["a", "b"]}, "body.input: OPEA's guardrails read one text"),
        ("retrieval", {"inputs": {"query": "x"}}, "body.inputs: expected a text, or"),
        ("dataprep", {"inputs": {}}, "body.inputs: expected"),
        ("dataprep", {"inputs": {"files": ["a.txt"]}}, "body.inputs.files: expected a list of files"),
        ("dataprep", {"parameters": {"operation": "drop"}}, "body.parameters.operation: 'drop' is not one"),
        ("dataprep", {"parameters": {"operation": "delete"}}, "body.inputs.file_path"),
        ("translation", {"inputs": "x", "parameters": LANGUAGES}, "model.name: 'm' does not translate; one of"),
        ("summarization", {"inputs": ["x"]}, "body.inputs: expected one text"),
        ("retrieval", {"inputs": "x", "parameters": {"graph": 1}}, "body.parameters.graph.*drop_unsupported"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_its_path(task: str, body: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        CLIENT.encode(task, body, model="m", stream=False)


def test_a_translation_needs_both_languages() -> None:
    with pytest.raises(InvalidRequest, match=r"body\.parameters\.tgt_lang"):
        body = {"inputs": "x", "parameters": {"src_lang": "Go"}}
        CLIENT.encode("translation", body, model="codetrans", stream=False)


@pytest.mark.parametrize("task", ["moderation", "retrieval", "dataprep", "translation", "summarization"])
@pytest.mark.parametrize("content", [b"", b"3", b"<html>", b'"x"'])
def test_a_reply_that_is_none_is_malformed(task: str, content: bytes) -> None:
    with pytest.raises(Malformed):
        CLIENT.decode(task, 200, {}, content)


def test_only_chats_are_streamed() -> None:
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        CLIENT.encode("retrieval", {"inputs": "x"}, model="m", stream=True)


def test_a_stream_comes_as_it_was_given() -> None:
    encoder = SERVER.stream_encoder(carried("chat", {"messages": [{"role": "user", "content": "x"}]}, "chatqna", True))
    pieces = ["Hé", "\n'\"\\", "☃"]
    content = b"".join(encoder.chunk(Chunk({"choices": [{"delta": {"content": text}}]})) for text in pieces)
    decoder = CLIENT.stream_decoder("chat")
    chunks = decoder.feed(content + encoder.end()) + decoder.finish()
    assert [chunk.body["choices"][0]["delta"].get("content") for chunk in chunks] == [*pieces, None]


def test_a_broken_stream_is_heard() -> None:
    encoder = SERVER.stream_encoder(carried("chat", {"messages": [{"role": "user", "content": "x"}]}, "chatqna", True))
    decoder = CLIENT.stream_decoder("chat")
    decoder.feed(
        encoder.chunk(Chunk({"choices": [{"delta": {"content": "a"}}]})) + encoder.failed(ServerFailed("gone"))
    )
    with pytest.raises(InferenceError, match="gone"):
        decoder.finish()


def test_a_refusal_is_understood_by_our_own_client() -> None:
    status, headers, content = SERVER.refusal(Overloaded("no room", retry_after_s=2))
    found = CLIENT.error(status, headers, content)
    assert (found.kind, found.retry_after_s) == ("overloaded", 2)
    assert "no room" in found.message


def test_the_service_says_that_it_is_well() -> None:
    assert CLIENT.models(SERVER.models(["m"])) is None


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("chatqna", b"{}"),
        ("codetrans", b'{"source_code":"x"}'),
        ("reranking", b'{"input":"x"}'),
        ("reranking", b'{"input":"x","retrieved_docs":[3]}'),
        ("retrieval", b"{}"),
        ("guardrails", b'{"text":3}'),
        ("dataprep/delete", b"{}"),
        ("dataprep/ingest", b"{}"),
        ("chatqna", b"[" * 100_000),
    ],
)
def test_what_can_not_be_understood_is_refused(path: str, content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        SERVER.read(f"/v1/{path}", {}, {"content-type": "application/json"}, content)
