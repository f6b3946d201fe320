from __future__ import annotations

from typing import Any

import pytest

from engine.simulation import answers


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("task", "body", "tokens"),
    [
        ("chat", chat(("system", "be brief"), ("user", "one two three")), 5),
        ("chat", chat(("user", [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {}}])), 2),
        ("chat", chat(("assistant", None)), 0),
        ("chat", {"messages": "no list"}, 0),
        ("completion", {"prompt": "one two"}, 2),
        ("completion", {"prompt": ["one two", "three"]}, 3),
        ("embedding", {"input": ["one", "two three"]}, 3),
    ],
)
def test_a_token_is_a_word(task: str, body: dict[str, Any], tokens: int) -> None:
    assert answers.input_tokens(task, body) == tokens


@pytest.mark.parametrize(
    ("task", "body", "limit"),
    [
        ("chat", {}, None),
        ("chat", {"max_tokens": 5}, 5),
        ("chat", {"max_completion_tokens": 3, "max_tokens": 5}, 3),
        ("embedding", {"max_tokens": 5}, 0),
    ],
)
def test_the_length_limit_is_the_requests_own(task: str, body: dict[str, Any], limit: int | None) -> None:
    assert answers.output_limit(task, body) == limit


@pytest.mark.parametrize(
    ("task", "body", "begun"),
    [
        ("chat", chat(("user", "hi")), None),
        ("chat", chat(("user", "hi"), ("assistant", "[simulated] word2 wor")), 3),
        ("chat", chat(("user", "hi"), ("assistant", "Once upon")), 0),
        ("chat", chat(("assistant", "[simulated] word2"), ("user", "and?")), None),
        ("completion", {"prompt": "say on: [simulated] word2"}, 2),
        ("completion", {"prompt": "say on"}, None),
        ("embedding", {"input": "[simulated] word2"}, None),
    ],
)
def test_the_beginning_of_an_answer_is_found(task: str, body: dict[str, Any], begun: int | None) -> None:
    assert answers.begun(task, body) == begun


def test_an_answer_in_two_parts_is_the_whole_answer() -> None:
    assert answers.text(3) + answers.text(5, 3) == answers.text(8)
