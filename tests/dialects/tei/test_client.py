"""Text Embeddings Inference. Fixtures are from its OpenAPI document (docs/openapi.json) and router/src/http."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import (
    AuthFailed,
    InferenceError,
    InvalidRequest,
    Malformed,
    Overloaded,
    ServerFailed,
    TooLong,
)
from engine.core.usage import Usage
from engine.dialects.tei.client import TeiDialect

DOCUMENTS = {"query": "What is Deep Learning?", "documents": ["a", {"text": "b"}]}


@pytest.fixture
def dialect() -> TeiDialect:
    return TeiDialect(lambda: 0.0)


def sent(dialect: TeiDialect, task: str, **body: Any) -> tuple[str, dict[str, Any]]:
    call = dialect.encode(task, body, model="m", stream=False)
    return call.path, msgspec.json.decode(call.content)


def test_an_embedding_goes_by_the_openai_path(dialect: TeiDialect) -> None:
    assert sent(dialect, "embedding", input=["a"], dimensions=8, encoding_format="base64", user="u") == (
        "/v1/embeddings",
        {"model": "m", "input": ["a"], "dimensions": 8, "encoding_format": "base64", "user": "u"},
    )


def test_an_embedding_with_the_servers_own_flags_goes_by_its_own_path(dialect: TeiDialect) -> None:
    flags = {"normalize": False, "truncate": True, "prompt_name": "query"}
    assert sent(dialect, "embedding", input=["a"], dimensions=8, truncation_direction="left", **flags) == (
        "/embed",
        {"inputs": ["a"], **flags, "truncation_direction": "Left", "dimensions": 8},
    )


def test_a_rerank_sends_plain_texts(dialect: TeiDialect) -> None:
    assert sent(dialect, "rerank", **DOCUMENTS, top_n=1, return_documents=True, truncate=True) == (
        "/rerank",
        {"query": "What is Deep Learning?", "texts": ["a", "b"], "return_text": True, "truncate": True},
    )


@pytest.mark.parametrize(
    ("task", "body", "where"),
    [
        ("embedding", {"input": "x", "priority": "high"}, "body.priority"),
        ("embedding", {"input": "x", "user": "u", "truncate": True}, "body.user"),
        ("rerank", {**DOCUMENTS, "max_chunks_per_doc": 2}, "body.max_chunks_per_doc"),
    ],
)
def test_what_would_be_lost_is_refused_or_dropped_with_a_warning(
    dialect: TeiDialect, task: str, body: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidRequest, match=where):
        dialect.encode(task, body, model="m", stream=False)
    call = dialect.encode(task, body, model="m", stream=False, drop_unsupported=True)
    assert call.warnings[0].startswith(f"{where} was dropped")


@pytest.mark.parametrize(
    ("task", "body", "stream"),
    [
        ("embedding", {"input": ""}, False),
        ("embedding", {"input": "x"}, True),
        ("embedding", {"input": "x", "encoding_format": "int8"}, False),
        ("rerank", {"documents": ["x"]}, False),
        ("rerank", {"query": "x", "documents": []}, False),
        ("rerank", {"query": "x", "documents": [{"text": "x", "title": "y"}]}, False),
        ("chat", {"messages": []}, False),
    ],
)
def test_what_can_not_be_sent_at_all_is_refused(
    dialect: TeiDialect, task: str, body: dict[str, Any], stream: bool
) -> None:
    with pytest.raises(InvalidRequest):
        dialect.encode(task, body, model="m", stream=stream, drop_unsupported=True)


def test_vectors_of_the_openai_path_come_as_they_are(dialect: TeiDialect) -> None:
    body = {
        "object": "list",
        "data": [{"object": "embedding", "embedding": [0.0, 1.0], "index": 0}],
        "model": "thenlper/gte-base",
        "usage": {"prompt_tokens": 512, "total_tokens": 512},
    }
    reply = dialect.decode("embedding", 200, {}, msgspec.json.encode(body))
    assert (reply.body, reply.usage) == (body, Usage(512, 0))


def test_vectors_of_the_own_path_are_numbered_and_counted_by_a_header(dialect: TeiDialect) -> None:
    reply = dialect.decode("embedding", 200, {"x-compute-tokens": "9"}, b"[[0.0,1.0],[2.0,3.0]]")
    assert reply.body["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.0, 1.0]},
        {"object": "embedding", "index": 1, "embedding": [2.0, 3.0]},
    ]
    assert (reply.usage, reply.body["usage"]) == (Usage(9, 0), {"prompt_tokens": 9, "total_tokens": 9})


def test_ranks_become_results(dialect: TeiDialect) -> None:
    content = b'[{"index":1,"text":"b","score":0.9},{"index":0,"score":0.1}]'
    reply = dialect.decode("rerank", 200, {}, content)
    assert reply.body == {
        "object": "list",
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.1},
        ],
    }
    assert reply.usage is None


@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("embedding", b"<html>"),
        ("embedding", b"[]"),
        ("embedding", b"[1]"),
        ("embedding", b"[[]]"),
        ("embedding", b"{}"),
        ("rerank", b"{}"),
        ("rerank", b'[{"index":0}]'),
        ("rerank", b'[{"index":"0","score":1}]'),
    ],
)
def test_a_reply_that_is_no_answer_is_malformed(dialect: TeiDialect, task: str, content: bytes) -> None:
    with pytest.raises(Malformed):
        dialect.decode(task, 200, {}, content)


@pytest.mark.parametrize(
    ("status", "message", "word", "kind"),
    [
        (424, "Inference failed", "Backend", ServerFailed),
        (429, "Model is overloaded", "Overloaded", Overloaded),
        (422, "Tokenization error", "Tokenizer", InvalidRequest),
        (400, "`inputs` cannot be empty", "Empty", InvalidRequest),
        (422, "batch size 64 > maximum allowed batch size 32", "Validation", InvalidRequest),
        (413, "batch size 64 > maximum allowed batch size 32", "Validation", InvalidRequest),
        (422, "`inputs` must have less than 512 tokens. Given: 600", "Validation", TooLong),
        (422, "`inputs` must have less than 128000 characters. Given: 200000", "Validation", TooLong),
        (503, "unhealthy", "Unhealthy", ServerFailed),
        (401, "", "", AuthFailed),
    ],
)
@pytest.mark.parametrize("openai", [False, True])
def test_each_error_has_its_word(
    dialect: TeiDialect, status: int, message: str, word: str, kind: type[InferenceError], openai: bool
) -> None:
    body = {"message": message, "code": status, "type": word} if openai else {"error": message, "error_type": word}
    with pytest.raises(InferenceError) as caught:
        dialect.decode("embedding", status, {}, msgspec.json.encode(body))
    assert type(caught.value) is kind
    assert message in caught.value.message


def test_too_many_inputs_tell_the_next_step(dialect: TeiDialect) -> None:
    body = b'{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}'
    assert "policy.batch.max_size" in dialect.error(422, {}, body).message


def test_the_model_is_that_of_its_info(dialect: TeiDialect) -> None:
    content = b'{"model_id":"thenlper/gte-base","served_model_name":"gte","max_input_length":512}'
    assert dialect.probe().path == "/info"
    assert dialect.models(content) == ["gte", "thenlper/gte-base"]
    assert dialect.models(b"[]") == []
