from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import Malformed
from engine.core.request import Request, Result
from engine.core.usage import Usage
from engine.tasks.splitting import join, split


def parts(task: str, body: dict[str, Any], most: int = 2) -> list[Any]:
    return [part.body for part in split(Request(task, body, id="1"), most)]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ("embedding", "input"),
        ("token-embedding", "inputs"),
        ("sparse-embedding", "inputs"),
        ("text-classification", "inputs"),
    ],
)
def test_a_list_of_texts_becomes_lists_that_the_server_takes(task: str, field: str) -> None:
    assert parts(task, {field: ["a", "b", "c"], "x": 1}) == [{field: ["a", "b"], "x": 1}, {field: ["c"], "x": 1}]


def test_documents_are_split_and_top_n_is_left_for_the_whole() -> None:
    found = parts("rerank", {"query": "q", "documents": ["a", "b", "c"], "top_n": 1})
    assert found == [{"query": "q", "documents": ["a", "b"]}, {"query": "q", "documents": ["c"]}]


def test_sentences_are_split() -> None:
    inputs = {"source_sentence": "s", "sentences": ["a", "b", "c"]}
    assert [part["inputs"]["sentences"] for part in parts("sentence-similarity", {"inputs": inputs})] == [
        ["a", "b"],
        ["c"],
    ]


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("embedding", {"input": "a"}),
        ("embedding", {"input": [1, 2, 3]}),
        ("embedding", {"input": ["a", "b"]}),
        ("text-classification", {"inputs": {"text": "a"}}),
        ("sentence-similarity", {"inputs": 3}),
        ("chat", {"messages": [1, 2, 3]}),
    ],
)
def test_what_fits_or_is_no_list_stays_whole(task: str, body: dict[str, Any]) -> None:
    assert parts(task, body) == [body]


def joined(task: str, body: dict[str, Any], *replies: tuple[dict[str, Any], Usage | None]) -> Result:
    request = Request(task, body, id="1")
    results = [Result("1", reply, usage=usage) for reply, usage in replies]
    return join(request, split(request, 2), results)


def data(*indices: int) -> dict[str, Any]:
    return {"model": "m", "data": [{"index": index, "embedding": [float(index)]} for index in indices], "usage": {}}


def test_vectors_get_their_place_in_the_whole() -> None:
    found = joined("embedding", {"input": ["a", "b", "c"]}, (data(0, 1), Usage(5, 0)), (data(0), Usage(2, 0)))
    assert found.body is not None
    assert [each["index"] for each in found.body["data"]] == [0, 1, 2]
    assert (found.usage, found.body["usage"]) == (Usage(7, 0), {"prompt_tokens": 7, "total_tokens": 7})


def test_a_part_without_a_count_leaves_the_whole_without_one() -> None:
    found = joined("embedding", {"input": ["a", "b", "c"]}, (data(0, 1), Usage(5, 0)), (data(0), None))
    assert found.body is not None
    assert (found.usage, "usage" in found.body) == (None, False)


def test_the_best_of_all_parts_come_first() -> None:
    def ranks(*scores: float) -> dict[str, Any]:
        return {"results": [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]}

    body = {"query": "q", "documents": ["a", "b", "c"], "top_n": 2, "return_documents": True}
    found = joined("rerank", body, (ranks(0.1, 0.5), None), (ranks(0.9), None))
    assert found.body is not None
    assert found.body["results"] == [
        {"index": 2, "relevance_score": 0.9, "document": {"text": "c"}},
        {"index": 1, "relevance_score": 0.5, "document": {"text": "b"}},
    ]


def test_outputs_follow_each_other() -> None:
    found = joined(
        "sparse-embedding", {"inputs": ["a", "b", "c"]}, ({"outputs": [1, 2]}, None), ({"outputs": [3]}, None)
    )
    assert found.body == {"outputs": [1, 2, 3]}


def test_a_part_with_too_few_answers_is_malformed() -> None:
    with pytest.raises(Malformed, match="expected 2 answers in a part of the request, got 1"):
        joined("embedding", {"input": ["a", "b", "c"]}, (data(0), None), (data(0), None))
