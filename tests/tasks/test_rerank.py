from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Malformed
from engine.tasks import rerank

ASKED = {"query": "q", "documents": ["a", {"text": "b"}, "c"]}


def result(index: int | None, score: float, text: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"relevance_score": score}
    if index is not None:
        made["index"] = index
    if text is not None:
        made["document"] = {"text": text}
    return made


def completed(results: list[dict[str, Any]], **asked: Any) -> list[dict[str, Any]]:
    body: dict[str, Any] = {"object": "list", "results": results}
    rerank.complete(body, {**ASKED, **asked}, "m")
    return body["results"]  # type: ignore[no-any-return]


def test_the_best_comes_first() -> None:
    found = completed([result(0, 0.1), result(1, 0.9), result(2, 0.5)])
    assert [each["index"] for each in found] == [1, 2, 0]


def test_no_more_than_top_n_are_kept() -> None:
    found = completed([result(0, 0.1), result(1, 0.9), result(2, 0.5)], top_n=2)
    assert [each["index"] for each in found] == [1, 2]


@pytest.mark.parametrize("top_n", [None, 0, 5])
def test_a_top_n_that_sets_no_limit_keeps_all(top_n: int | None) -> None:
    assert len(completed([result(0, 0.1), result(1, 0.9), result(2, 0.5)], top_n=top_n)) == 3


def test_documents_come_back_where_they_were_asked_for() -> None:
    found = completed([result(1, 0.9), result(0, 0.2)], top_n=2, return_documents=True)
    assert [each["document"] for each in found] == [{"text": "b"}, {"text": "a"}]


def test_documents_that_were_not_wanted_are_left_out() -> None:
    assert completed([result(1, 0.9, "b")], top_n=1, return_documents=False) == [result(1, 0.9)]


def test_the_model_is_named() -> None:
    body: dict[str, Any] = {"results": [result(0, 1.0)]}
    rerank.complete(body, {"documents": ["a"]}, "m")
    assert body["model"] == "m"


def test_a_document_named_by_its_text_alone_is_found() -> None:
    found = completed([result(None, 0.9, "c"), result(None, 0.4, "a"), result(None, 0.1, "b")])
    assert [each["index"] for each in found] == [2, 0, 1]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), st.randoms())
def test_equal_texts_each_get_a_place_of_their_own(texts: list[str], random: Any) -> None:
    shuffled = texts[:]
    random.shuffle(shuffled)
    found = completed([result(None, 1 / (1 + place), text) for place, text in enumerate(shuffled)], documents=texts)
    assert sorted(each["index"] for each in found) == list(range(len(texts)))
    assert all(texts[each["index"]] == each["document"]["text"] for each in found)


@pytest.mark.parametrize(
    "results",
    [
        [result(0, 1.0), result(0, 0.5), result(1, 0.2)],
        [result(0, 1.0), result(1, 0.5), result(3, 0.2)],
        [result(-1, 1.0), result(1, 0.5), result(0, 0.2)],
        [result(0, 1.0), result(1, 0.5)],
        [result(None, 1.0, "unheard of")],
    ],
)
def test_results_that_do_not_fit_the_documents_are_malformed(results: list[dict[str, Any]]) -> None:
    with pytest.raises(Malformed):
        completed(results)
