from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import ContentFiltered, InvalidRequest, Malformed, Overloaded, ServerFailed
from engine.core.usage import Usage
from engine.dialects.openai.client import OpenAIDialect
from tests.servers.replies import completion

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def dialect() -> OpenAIDialect:
    return OpenAIDialect(lambda: 0.0)


def sent(dialect: OpenAIDialect, task: str, body: dict[str, Any], stream: bool = False) -> dict[str, Any]:
    return msgspec.json.decode(dialect.encode(task, body, model="m", stream=stream).content)  # type: ignore[no-any-return]


def decoded(dialect: OpenAIDialect, body: Any, task: str = "chat", headers: dict[str, str] | None = None) -> Any:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return dialect.decode(task, 200, headers or {}, content)


# -- encode ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "path"),
    [("chat", "/chat/completions"), ("completion", "/completions"), ("embedding", "/embeddings")],
)
def test_each_task_has_its_path(dialect: OpenAIDialect, task: str, path: str) -> None:
    call = dialect.encode(task, {"input": "x"}, model="m", stream=False)
    assert (call.method, call.path) == ("POST", path)


def test_every_field_of_the_body_is_passed_on(dialect: OpenAIDialect) -> None:
    body = {"messages": MESSAGES, "tools": [{"type": "function"}], "vendor_field": {"x": [1, None, 2.5]}}
    assert sent(dialect, "chat", body) == {**body, "model": "m"}


def test_the_callers_body_is_not_changed(dialect: OpenAIDialect) -> None:
    body: dict[str, Any] = {"messages": MESSAGES, "stream_options": {"x": 1}}
    dialect.encode("chat", body, model="m", stream=True)
    dialect.encode("chat", body, model="m", stream=False)
    assert body == {"messages": MESSAGES, "stream_options": {"x": 1}}


def test_the_targets_model_replaces_the_bodys(dialect: OpenAIDialect) -> None:
    assert sent(dialect, "chat", {"messages": MESSAGES, "model": "other"})["model"] == "m"


def test_a_stream_asks_for_its_usage(dialect: OpenAIDialect) -> None:
    body = sent(dialect, "chat", {"messages": MESSAGES, "stream_options": {"include_obfuscation": False}}, stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_plain_call_never_streams(dialect: OpenAIDialect) -> None:
    body = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    assert sent(dialect, "chat", body) == {"messages": MESSAGES, "model": "m"}


def test_an_embedding_is_not_streamed(dialect: OpenAIDialect) -> None:
    with pytest.raises(InvalidRequest, match="can't be streamed"):
        dialect.encode("embedding", {"input": "x"}, model="m", stream=True)


@pytest.mark.parametrize("value", [object(), "\ud800"])
def test_what_json_can_not_hold_is_refused(dialect: OpenAIDialect, value: object) -> None:
    with pytest.raises(InvalidRequest, match="can't be written as JSON"):
        dialect.encode("chat", {"messages": value}, model="m", stream=False)


# -- decode ------------------------------------------------------------------------------------------------------------


def test_a_reply_comes_back_as_it_is(dialect: OpenAIDialect) -> None:
    body = completion(system_fingerprint="fp", vendor={"x": 1})
    reply = decoded(dialect, body, headers={"x-request-id": "req_1"})
    assert reply.body == body
    assert reply.provider_request_id == "req_1"


def test_usage_counts_cached_and_reasoning_tokens(dialect: OpenAIDialect) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert decoded(dialect, completion(usage=usage)).usage == Usage(10, 5, 8, 3)


def test_usage_of_deepseek_counts_its_cache_hits(dialect: OpenAIDialect) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 6}
    assert decoded(dialect, completion(usage=usage)).usage == Usage(10, 5, 6)


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": None}, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "prompt_tokens_details": None}]
)
def test_usage_that_is_no_count_is_zero(dialect: OpenAIDialect, usage: dict[str, Any]) -> None:
    assert decoded(dialect, completion(usage=usage)).usage == Usage()


def test_a_reply_without_usage_has_none(dialect: OpenAIDialect) -> None:
    assert decoded(dialect, completion(usage=None)).usage is None


def test_a_tool_call_needs_no_content(dialect: OpenAIDialect) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    body = completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    assert decoded(dialect, body).body == body


def test_a_completion_may_be_empty(dialect: OpenAIDialect) -> None:
    body = completion(choices=[{"index": 0, "text": "", "finish_reason": "stop"}])
    assert decoded(dialect, body, "completion").body == body


def test_embeddings_come_back_as_they_are(dialect: OpenAIDialect) -> None:
    body = {"data": [{"index": 0, "embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 3}}
    reply = decoded(dialect, body, "embedding")
    assert (reply.body, reply.usage) == (body, Usage(3))


@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("chat", b""),
        ("chat", b"\n\n"),
        ("chat", b'{"choices": [{"message": {"content": "Par'),
        ("chat", b"<html><head><title>502 Bad Gateway</title></head></html>"),
        ("chat", b"[1]"),
        ("chat", b"{}"),
        ("chat", b'{"choices": []}'),
        ("chat", b'{"choices": null}'),
        ("chat", b'{"choices": [null]}'),
        ("chat", b'{"choices": [{"message": "x"}]}'),
        ("chat", b'{"choices": [{"text": "x"}]}'),
        ("chat", b'{"choices": [{"message": {"content": "\xff"}}]}'),
        ("chat", b"[" * 100_000),
        ("completion", b'{"choices": [{"message": {}}]}'),
        ("embedding", b'{"data": []}'),
        ("embedding", b'{"data": [{"index": 0}]}'),
        ("embedding", b'{"data": [{"embedding": []}]}'),
    ],
)
def test_a_reply_that_is_no_answer_is_malformed(dialect: OpenAIDialect, task: str, content: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        decoded(dialect, content, task, {"x-request-id": "req_1"})
    assert (caught.value.status, caught.value.provider_request_id) == (200, "req_1")
    assert len(caught.value.message) < 400


def test_a_page_is_shown_by_its_title(dialect: OpenAIDialect) -> None:
    with pytest.raises(Malformed, match="an HTML page: 502 Bad Gateway"):
        decoded(dialect, b"<html>\n<title>502\nBad Gateway</title>" + b"<p>" * 9999)


@pytest.mark.parametrize("content", [None, ""])
def test_a_filter_that_left_nothing_is_an_error(dialect: OpenAIDialect, content: str | None) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "content_filter"}
    with pytest.raises(ContentFiltered):
        decoded(dialect, completion(choices=[choice]))


def test_a_filter_that_cut_the_answer_short_leaves_the_answer(dialect: OpenAIDialect) -> None:
    assert decoded(dialect, completion("Some of it", "content_filter")).body["choices"][0]["message"]["content"]


@pytest.mark.parametrize(("reason", "kind"), [("error", ServerFailed), ("insufficient_system_resource", Overloaded)])
def test_a_finish_reason_that_is_a_failure_is_one(dialect: OpenAIDialect, reason: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        decoded(dialect, completion("half an ans", reason))


def test_an_error_within_a_choice_is_an_error(dialect: OpenAIDialect) -> None:
    choice = {**completion()["choices"][0], "error": {"code": 502, "message": "Upstream died"}}
    with pytest.raises(ServerFailed, match="Upstream died"):
        decoded(dialect, completion(choices=[choice]))


def test_the_probes_list_of_models_is_read(dialect: OpenAIDialect) -> None:
    assert dialect.models(b'{"data": [{"id": "a"}, {"id": "b"}]}') == ["a", "b"]
    assert dialect.models(b'[{"id": "a"}]') == ["a"]
    assert dialect.models(b"<html>") == []
