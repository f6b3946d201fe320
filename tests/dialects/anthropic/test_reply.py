"""Anthropic's replies: bodies as its API reference has them ("Create a Message", "Stop reasons", "Prompt caching")."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import ContentFiltered, Malformed, Overloaded
from engine.core.usage import Usage
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.client import Reply

USAGE = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 2,
    "service_tier": "standard",
}


def message(*content: Any, reason: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": list(content),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": USAGE,
        **fields,
    }


def text(said: str = "Paris.") -> dict[str, Any]:
    return {"type": "text", "text": said}


def decoded(body: Any, headers: dict[str, str] | None = None) -> Reply:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return AnthropicDialect(lambda: 42.5).decode("chat", 200, headers or {}, content)


def choice(body: Any) -> dict[str, Any]:
    return decoded(body).body["choices"][0]  # type: ignore[no-any-return]


def test_a_message_is_a_chat_completion() -> None:
    reply = decoded(message(text()), {"request-id": "req_1"})
    assert reply.body == {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "object": "chat.completion",
        "created": 42,
        "model": "claude-haiku-5-5",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
    assert (reply.usage, reply.provider_request_id) == (Usage(7, 2), "req_1")


def test_texts_are_joined() -> None:
    assert choice(message(text("Par"), text("is.")))["message"]["content"] == "Paris."


def test_an_answer_without_words_is_an_empty_text() -> None:
    assert choice(message())["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "length"),
    ],
)
def test_a_stop_reason_is_a_finish_reason(reason: str, finish: str) -> None:
    assert choice(message(text(), reason=reason))["finish_reason"] == finish


def test_the_stop_sequence_that_was_met_is_told() -> None:
    assert choice(message(text(), reason="stop_sequence", stop_sequence="END"))["stop_reason"] == "END"


def test_tool_uses_are_parallel_calls() -> None:
    uses = [{"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": {"a": n}} for n in (1, 2)]
    assert choice(message(*uses, reason="tool_use"))["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"toolu_{n}", "type": "function", "function": {"name": "f", "arguments": f'{{"a":{n}}}'}}
            for n in (1, 2)
        ],
    }


def test_thoughts_are_reasoning_and_keep_their_signature() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    answer = choice(message(*thoughts, text()))["message"]
    assert (answer["reasoning_content"], answer["thinking_blocks"]) == ("Hm.", thoughts)


def test_cached_and_thinking_tokens_are_counted() -> None:
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
    }
    reply = decoded(message(text(), usage=usage))
    assert reply.body["usage"] == {
        "prompt_tokens": 1105,
        "completion_tokens": 50,
        "total_tokens": 1155,
        "prompt_tokens_details": {"cached_tokens": 1000, "cache_write_tokens": 100},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    assert reply.usage == Usage(1105, 50, 1000, 30, cache_write_tokens=100)


def test_a_refusal_is_filtered_content() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "It could harm."}
    with pytest.raises(ContentFiltered, match=r"\(cyber\): It could harm\.") as caught:
        decoded(message(text("I"), reason="refusal", stop_details=details), {"request-id": "req_1"})
    assert (caught.value.code, caught.value.status, caught.value.provider_request_id) == ("refusal", 200, "req_1")


def test_an_error_with_status_200_is_an_error() -> None:
    with pytest.raises(Overloaded):
        decoded({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type":"message"}',
        b"<html><title>Hello</title></html>",
        b"[" * 100_000,
        message(reason="no_such_reason"),
        message(text(), stop_reason=None),
        message({"type": "text"}),
        message({"type": "text", "text": None}),
        message({"type": "tool_use", "name": "f", "input": {}}),
        message("Paris."),
        message({}),
    ],
)
def test_what_is_no_message_is_malformed(body: Any) -> None:
    with pytest.raises(Malformed) as caught:
        decoded(body, {"request-id": "req_1"})
    assert (caught.value.status, caught.value.provider_request_id) == (200, "req_1")


def test_a_stop_reason_that_is_not_known_keeps_the_answer() -> None:
    kept = choice(message(text(), reason="no_such_reason"))
    assert (kept["message"]["content"], kept["finish_reason"]) == ("Paris.", "no_such_reason")


def test_a_block_of_a_server_tool_is_left_out() -> None:
    assert choice(message({"type": "server_tool_use", "id": "x"}, text()))["message"]["content"] == "Paris."


def test_models_are_listed() -> None:
    body = b'{"data":[{"type":"model","id":"claude-opus-5-5"},{"type":"model","id":"claude-haiku-5-5"}]}'
    dialect = AnthropicDialect()
    assert dialect.models(body) == ["claude-opus-5-5", "claude-haiku-5-5"]
    assert [dialect.models(bad) for bad in (b"", b"[]", b'{"data":7}')] == [[], [], []]
    assert (dialect.probe().method, dialect.probe().path) == ("GET", "/v1/models?limit=1000")
