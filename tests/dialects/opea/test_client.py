from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, InvalidRequest, Malformed, ServerFailed
from engine.core.usage import Usage
from engine.dialects.opea.client import MEGASERVICES, OpeaDialect

USER = {"role": "user", "content": "hi"}

# GenAIComps 1.5: a megaservice's ChatCompletionResponse, as one built on it sent it.
CHATQNA = (
    b'{"id":"chatcmpl-yyCpuoRmvxWB2hDbfyb5YY","object":"chat.completion","created":1795397451,"model":"chatqna",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Paris.","audio":null},"finish_reason":"stop",'
    b'"metadata":null}],"usage":{"prompt_tokens":0,"total_tokens":0,"completion_tokens":0}}'
)


@pytest.fixture
def dialect() -> OpeaDialect:
    return OpeaDialect(lambda: 0.0)


def sent(
    dialect: OpeaDialect, body: dict[str, Any], task: str = "chat", model: str = "chatqna", **options: Any
) -> dict[str, Any]:
    call = dialect.encode(task, body, model=model, **{"stream": False, **options})
    return msgspec.json.decode(call.content)  # type: ignore[no-any-return]


def refused(dialect: OpeaDialect, body: dict[str, Any], task: str = "chat", model: str = "chatqna") -> str:
    """What the refusal says; with drop_unsupported, it is a warning."""
    with pytest.raises(InvalidRequest) as caught:
        sent(dialect, body, task, model)
    call = dialect.encode(task, body, model=model, stream=False, drop_unsupported=True)
    where = caught.value.message.partition(":")[0]
    assert any(warning.startswith(where) for warning in call.warnings)
    assert "drop_unsupported" in caught.value.message
    return where


# -- megaservices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MEGASERVICES - {"visualqna"}))
def test_a_megaservice_is_called_by_its_name(dialect: OpeaDialect, name: str) -> None:
    call = dialect.encode("chat", {"messages": [USER], "model": name}, model=name, stream=False)
    assert (call.method, call.path) == ("POST", f"/{name}")
    assert "model" not in msgspec.json.decode(call.content)


@pytest.mark.parametrize("stream", [True, False])
def test_whether_to_stream_is_always_said(dialect: OpeaDialect, stream: bool) -> None:
    assert sent(dialect, {"messages": [USER]}, stream=stream)["stream"] is stream


def test_what_the_service_hands_on_is_sent(dialect: OpeaDialect) -> None:
    fields = {"temperature": 0.5, "top_p": 0.9, "k": 3, "top_n": 2, "search_type": "mmr", "chat_template": "{question}"}
    assert sent(dialect, {"messages": [USER], "max_completion_tokens": 9, **fields}) == {
        "messages": [USER],
        "max_tokens": 9,
        "stream": False,
        **fields,
    }


@pytest.mark.parametrize(
    "field", [{"stop": ["x"]}, {"seed": 1}, {"n": 2}, {"tools": [{}]}, {"response_format": {"type": "json_object"}}]
)
def test_what_the_service_would_lose_is_refused_or_warned_about(dialect: OpeaDialect, field: dict[str, Any]) -> None:
    (name,) = field
    assert refused(dialect, {"messages": [USER], **field}) == f"body.{name}"


@pytest.mark.parametrize("field", [{"n": 1}, {"stop": None}, {"response_format": {"type": "text"}}, {"store": False}])
def test_what_asks_for_nothing_is_left_out(dialect: OpeaDialect, field: dict[str, Any]) -> None:
    assert sent(dialect, {"messages": [USER], **field}) == {"messages": [USER], "stream": False}


def test_a_temperature_of_zero_is_warned_about(dialect: OpeaDialect) -> None:
    call = dialect.encode("chat", {"messages": [USER], "temperature": 0}, model="chatqna", stream=False)
    assert "0.01" in call.warnings[0]


def test_messages_become_texts(dialect: OpeaDialect) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None},
        USER,
    ]
    assert sent(dialect, {"messages": messages})["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": ""},
        USER,
    ]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "system", "content": "late"}, "body.messages[1]"),
        ({"role": "tool", "tool_call_id": "1", "content": "x"}, "body.messages[1].tool_call_id"),
        ({"role": "critic", "content": "x"}, "body.messages[1]"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "body.messages[1].tool_calls"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "body.messages[1].content[0]",
        ),
    ],
)
def test_a_message_that_has_no_place_is_refused_or_warned_about(
    dialect: OpeaDialect, message: dict[str, Any], where: str
) -> None:
    assert refused(dialect, {"messages": [USER, message]}) == where


@pytest.mark.parametrize(
    "messages", [None, [], "hi", [3], [{"role": "system", "content": "x"}], [{**USER, "content": 3}]]
)
def test_messages_that_are_none_are_refused(dialect: OpeaDialect, messages: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.messages"):
        sent(dialect, {"messages": messages})


def test_a_megaservices_reply_is_read_and_counts_nothing(dialect: OpeaDialect) -> None:
    reply = dialect.decode("chat", 200, {}, CHATQNA)
    assert reply.body["choices"][0]["message"]["content"] == "Paris."
    assert reply.usage is None
    assert "usage" not in reply.body


def test_codegens_word_for_a_failure_is_a_failure(dialect: OpeaDialect) -> None:
    # GenAIExamples, CodeGen/codegen.py: the content where the model's reply can't be read.
    with pytest.raises(ServerFailed, match="Response Error"):
        dialect.decode("chat", 200, {}, CHATQNA.replace(b"Paris.", b"Response Error"))


# -- the microservice of a model ---------------------------------------------------------------------------------------


def test_a_model_is_called_at_its_microservice(dialect: OpeaDialect) -> None:
    body = {"messages": [USER], "temperature": 0, "stop": ["x"], "n": 2, "max_completion_tokens": 7}
    call = dialect.encode("chat", body, model="llama", stream=False)
    assert call.path == "/chat/completions"
    assert msgspec.json.decode(call.content) == {
        "messages": [USER], "temperature": 0, "stop": ["x"], "n": 2, "max_tokens": 7, "model": "llama",
    }  # fmt: skip


def test_its_stream_says_the_usage(dialect: OpeaDialect) -> None:
    assert sent(dialect, {"messages": [USER]}, model="llama", stream=True)["stream_options"] == {"include_usage": True}


def test_its_usage_is_kept(dialect: OpeaDialect) -> None:
    content = CHATQNA.replace(b'"prompt_tokens":0', b'"prompt_tokens":5')
    assert dialect.decode("chat", 200, {}, content).usage == Usage(5)


def test_a_tool_that_is_named_is_called(dialect: OpeaDialect) -> None:
    choice = {"type": "function", "function": {"name": "f"}}
    body = {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": choice}
    assert sent(dialect, body, model="llama") == {**body, "model": "llama"}


@pytest.mark.parametrize(
    ("field", "where"),
    [
        ({"tools": [{"type": "function"}]}, "body.tools"),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, "body.tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "body.response_format"),
        ({"seed": 0}, "body.seed"),
        ({"reasoning_effort": "low"}, "body.reasoning_effort"),
    ],
)
def test_what_the_microservice_would_lose_is_refused(dialect: OpeaDialect, field: dict[str, Any], where: str) -> None:
    assert refused(dialect, {"messages": [USER], **field}, model="llama") == where


def test_a_message_without_content_is_sent_without_null(dialect: OpeaDialect) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [USER, {"role": "assistant", "content": None, "name": None, "tool_calls": [call]}]
    assert sent(dialect, {"messages": messages}, model="llama")["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]


# -- embeddings and rerank ---------------------------------------------------------------------------------------------


def test_embeddings_have_openais_form(dialect: OpeaDialect) -> None:
    call = dialect.encode("embedding", {"input": ["a"], "dimensions": 8}, model="bge", stream=False)
    assert call.path == "/embeddings"
    assert msgspec.json.decode(call.content) == {"input": ["a"], "dimensions": 8, "model": "bge"}


def test_documents_are_ranked_all_unless_told_otherwise(dialect: OpeaDialect) -> None:
    body = {"query": "q", "documents": ["a", {"text": "b"}], "return_documents": True, "model": "x"}
    assert dialect.encode("rerank", body, model="m", stream=False).path == "/reranking"
    assert sent(dialect, body, "rerank") == {
        "input": "q",
        "retrieved_docs": [{"text": "a"}, {"text": "b"}],
        "top_n": 2,
    }
    assert sent(dialect, {**body, "top_n": 1}, "rerank")["top_n"] == 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"documents": [{"text": "a", "title": "t"}]}, "body.documents[0].title"),
        ({"max_tokens_per_doc": 9}, "body.max_tokens_per_doc"),
    ],
)
def test_what_the_reranker_would_lose_is_refused(dialect: OpeaDialect, change: dict[str, Any], where: str) -> None:
    assert refused(dialect, {"query": "q", "documents": ["a"], **change}, "rerank") == where


@pytest.mark.parametrize("body", [{"documents": ["a"]}, {"query": "q"}, {"query": "q", "documents": [3]}])
def test_a_rerank_without_its_parts_is_refused(dialect: OpeaDialect, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.(query|documents)"):
        sent(dialect, body, "rerank")


def test_a_ranking_names_its_documents_by_their_text(dialect: OpeaDialect) -> None:
    # GenAIComps 1.5, comps/cores/proto/api_protocol.py, RerankingResponse.
    reply = dialect.decode("rerank", 200, {}, b'{"reranked_docs":[{"text":"b","score":0.9},{"text":"a","score":0}]}')
    assert reply.body == {
        "object": "list",
        "results": [
            {"relevance_score": 0.9, "document": {"text": "b"}},
            {"relevance_score": 0, "document": {"text": "a"}},
        ],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"reranked_docs":[]}',
        b'{"reranked_docs":[{"text":"a"}]}',
        # GenAIComps: LLMParamsDoc, which the service answers a SearchedDoc with; it has no scores.
        b'{"query":"q","documents":["a"]}',
    ],
)
def test_a_ranking_that_is_none_is_malformed(dialect: OpeaDialect, content: bytes) -> None:
    with pytest.raises(Malformed):
        dialect.decode("rerank", 200, {}, content)


# -- errors and health -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        # A service that raised, one that was asked in a wrong form (FastAPI), GenAIComps' ErrorResponse.
        (500, b"Internal Server Error", "server"),
        (422, b'{"detail":[{"type":"missing","loc":["body","input"],"msg":"Field required"}]}', "invalid_request"),
        (404, b'{"detail":"Not Found"}', "invalid_request"),
        (200, b'{"object":"error","message":"the rate limit is reached","code":429}', "throttled"),
    ],
)
@pytest.mark.parametrize("task", ["chat", "rerank"])
def test_errors_are_typed(dialect: OpeaDialect, task: str, status: int, content: bytes, kind: str) -> None:
    with pytest.raises(InferenceError) as caught:
        dialect.decode(task, status, {}, content)
    assert caught.value.kind == kind


def test_a_healthy_service_lists_no_models(dialect: OpeaDialect) -> None:
    assert dialect.probe().path == "/health_check"
    assert dialect.models(b'{"Service Title":"ChatQnA","Version":"1.5","Service Description":"x"}') is None
    assert dialect.models(b"<html>") == dialect.models(b"{}") == []


def test_a_completion_is_not_on_this_wire(dialect: OpeaDialect) -> None:
    with pytest.raises(InvalidRequest, match="not on OPEA's wire"):
        dialect.encode("completion", {"prompt": "x"}, model="m", stream=False)
