"""Reading chat bodies and building chat replies."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.tasks import chat


def test_messages_become_plain_text() -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]},
            {"role": "assistant", "content": "Hi", "tool_calls": None},
        ]
    }
    assert chat.read(body)[0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello you"},
        {"role": "assistant", "content": "Hi"},
    ]


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        (None, "body.messages"),
        ([], "body.messages"),
        (["hi"], r"body.messages\[0\]"),
        ([{"role": "wizard", "content": "x"}], r"body.messages\[0\].role"),
        ([{"role": "tool", "content": "x", "tool_call_id": "1"}], r"body.messages\[0\].role"),
        ([{"role": "user"}], r"body.messages\[0\].content"),
        ([{"role": "user", "content": "x"}, IMAGE], r"body.messages\[1\].content\[0\]"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{}]}], r"body.messages\[0\].tool_calls"),
    ],
)
def test_what_cant_be_read_is_refused_by_its_path(messages: Any, path: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{path}: "):
        chat.read({"messages": messages})


def test_a_reply_is_an_openai_chat_completion() -> None:
    reply = chat.Answer("7", "m", 123).reply("Hi", "stop", Usage(3, 2))
    assert reply == {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 123,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_a_stream_says_first_who_speaks_and_last_why_it_ended() -> None:
    answer = chat.Answer("7", "m", 123)
    chunks = [answer.opening(), answer.part("Hi"), answer.closing("length")]
    assert {chunk["object"] for chunk in chunks if chunk} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0] for chunk in chunks if chunk]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    assert deltas[1]["delta"] == {"content": "Hi"}
    assert [delta["finish_reason"] for delta in deltas] == [None, None, "length"]
    assert answer.totals(Usage(1, 1))["choices"] == []
