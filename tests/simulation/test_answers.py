from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
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
        ("rerank", {"query": "one", "documents": ["two three", {"text": "four"}]}, 4),
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
        ("rerank", {}, 0),
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


def test_a_document_is_as_good_as_the_words_of_the_query_that_it_has() -> None:
    body = {"query": "Red apple", "documents": ["a pear", {"text": "a red apple"}, "red"], "top_n": 2}
    reply = answers.computed("rerank", body, 8, "m", Usage(7))
    assert [(each["index"], each["relevance_score"]) for each in reply["results"]] == [(1, 1.0), (2, 0.5)]
    assert reply["usage"]["prompt_tokens"] == 7


@pytest.mark.parametrize("body", [{"query": "q"}, {"query": "q", "documents": []}, {"documents": ["d"]}])
def test_a_ranking_needs_a_query_and_documents(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.(query|documents)"):
        answers.check("rerank", body)
