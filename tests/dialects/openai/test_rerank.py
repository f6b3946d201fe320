from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest, Malformed
from engine.core.usage import Usage
from engine.dialects.openai.client import OpenAIDialect

ASKED = {"query": "capital of France?", "documents": ["Paris", "Berlin"]}

# vLLM, docs "Pooling models", "Re-rank API".
VLLM = b"""{"id": "rerank-fae51b2b664d4ed38f5969b612edff77", "model": "BAAI/bge-reranker-base",
 "usage": {"prompt_tokens": 56, "total_tokens": 56},
 "results": [{"index": 1, "document": {"text": "Berlin"}, "relevance_score": 0.99853515625},
 {"index": 0, "document": {"text": "Paris"}, "relevance_score": 0.0005860328674316406}]}"""
# Jina, "Reranker API".
JINA = b"""{"model": "jina-reranker-v2-base-multilingual", "object": "list", "usage": {"total_tokens": 815},
 "results": [{"index": 0, "relevance_score": 0.87}, {"index": 1, "relevance_score": 0.1}]}"""
# Cohere, API reference, "Rerank (v2)".
COHERE = b"""{"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.32713068}],
 "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
 "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": 21}}}"""
# OpenVINO Model Server, docs/model_server_rest_api_rerank.md.
OVMS = b"""{"results": [{"index": 0, "relevance_score": 0.3886180520057678},
 {"index": 1, "relevance_score": 0.0055549247190356255}]}"""
# Voyage AI, "Rerankers", "REST API".
VOYAGE = b"""{"object": "list", "data": [{"relevance_score": 0.4375, "index": 0, "document": "Paris"},
 {"relevance_score": 0.421875, "index": 1, "document": "Berlin"}], "model": "rerank-2",
 "usage": {"total_tokens": 26}}"""
# SGLang, "Rerank models".
SGLANG = b"""[{"score": 0.99, "document": "Paris", "index": 0, "meta_info": null},
 {"score": 0.01, "document": "Berlin", "index": 1, "meta_info": null}]"""


@pytest.fixture
def dialect() -> OpenAIDialect:
    return OpenAIDialect(lambda: 0.0)


def decoded(dialect: OpenAIDialect, content: bytes) -> Any:
    return dialect.decode("rerank", 200, {"x-request-id": "req_1"}, content)


def test_a_rerank_goes_to_its_path_as_it_is(dialect: OpenAIDialect) -> None:
    call = dialect.encode("rerank", {**ASKED, "top_n": 1, "truncate_prompt_tokens": 9}, model="m", stream=False)
    assert call.path == "/rerank"
    assert msgspec.json.decode(call.content) == {**ASKED, "top_n": 1, "truncate_prompt_tokens": 9, "model": "m"}


def test_documents_that_are_only_a_text_are_sent_as_the_text(dialect: OpenAIDialect) -> None:
    documents = [{"text": "Paris"}, "Berlin", {"text": "Rome", "title": "Italy"}, {"content": [{"type": "image_url"}]}]
    body = {"query": "q", "documents": documents}
    call = dialect.encode("rerank", body, model="m", stream=False)
    assert msgspec.json.decode(call.content)["documents"] == ["Paris", *documents[1:]]
    assert body["documents"] is documents
    assert documents[0] == {"text": "Paris"}


def test_a_rerank_is_not_streamed(dialect: OpenAIDialect) -> None:
    with pytest.raises(InvalidRequest, match="rerank can't be streamed"):
        dialect.encode("rerank", dict(ASKED), model="m", stream=True)


@pytest.mark.parametrize(
    ("content", "scores", "usage"),
    [
        (VLLM, {1: 0.99853515625, 0: 0.0005860328674316406}, Usage(56)),
        (JINA, {0: 0.87, 1: 0.1}, Usage(815)),
        (COHERE, {1: 0.9, 0: 0.32713068}, Usage(21)),
        (OVMS, {0: 0.3886180520057678, 1: 0.0055549247190356255}, None),
        (VOYAGE, {0: 0.4375, 1: 0.421875}, Usage(26)),
        (SGLANG, {0: 0.99, 1: 0.01}, None),
    ],
)
def test_every_servers_reply_is_read(
    dialect: OpenAIDialect, content: bytes, scores: dict[int, float], usage: Usage | None
) -> None:
    reply = decoded(dialect, content)
    assert reply.body["object"] == "list"
    assert {each["index"]: each["relevance_score"] for each in reply.body["results"]} == scores
    assert "data" not in reply.body
    assert (reply.usage, reply.provider_request_id) == (usage, "req_1")


@pytest.mark.parametrize("content", [VLLM, VOYAGE, SGLANG])
def test_documents_have_one_form(dialect: OpenAIDialect, content: bytes) -> None:
    results = decoded(dialect, content).body["results"]
    assert {each["index"]: each["document"] for each in results} == {0: {"text": "Paris"}, 1: {"text": "Berlin"}}


def test_what_a_reply_says_besides_is_kept(dialect: OpenAIDialect) -> None:
    body = decoded(dialect, COHERE).body
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert body["id"].startswith("07734bd2")
    assert body["usage"] == {"prompt_tokens": 21, "total_tokens": 21}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b'{"results": []}',
        b'{"results": null, "data": 3}',
        b'{"results": [1]}',
        b'{"results": [{"index": 0}]}',
        b'{"results": [{"index": "0", "relevance_score": 1}]}',
        b'{"results": [{"index": 0, "relevance_score": "high"}]}',
        b'{"results": [{"index": 0, "relevance_score": true}]}',
    ],
)
def test_a_reply_that_is_no_ranking_is_malformed(dialect: OpenAIDialect, content: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        decoded(dialect, content)
    assert (caught.value.status, caught.value.provider_request_id) == (200, "req_1")


def test_a_200_that_carries_an_error_is_an_error(dialect: OpenAIDialect) -> None:
    with pytest.raises(InvalidRequest, match="Mediapipe graph"):
        decoded(dialect, b'{"error": {"message": "Mediapipe graph definition is not loaded", "code": 404}}')
