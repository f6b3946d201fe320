"""Reading embedding bodies and building embedding replies."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from engine.core.errors import InvalidRequest, Malformed
from engine.tasks import embedding

np = pytest.importorskip("numpy")


@pytest.mark.parametrize(("given", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"])])
def test_texts_are_read(given: Any, texts: list[str]) -> None:
    assert embedding.read({"input": given}).texts == texts


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (None, "body.input"), ("", "body.input"), ([], "body.input"), (["a", ""], r"body.input\[1\]"),
        ([1, 2], r"body.input\[0\]"), ([[1, 2]], r"body.input\[0\]"),
    ],
)  # fmt: skip
def test_another_input_is_refused_by_its_path(given: Any, path: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{path}: "):
        embedding.read({"input": given})


@pytest.mark.parametrize(("name", "value"), [("encoding_format", "hex"), ("dimensions", 5), ("temperature", 1)])
def test_a_field_that_cant_be_honoured_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"^body\.{name}: "):
        embedding.read({"input": "a", name: value})


def test_both_formats_carry_the_same_vectors() -> None:
    from engine.tasks.local_model import Embeddings

    found = Embeddings(np.array([[0.25, -1], [3, 4]], np.float32), [2, 3])
    numbers, usage = embedding.reply(embedding.read({"input": ["a", "b"]}), found, "m")
    packed, _ = embedding.reply(embedding.read({"input": ["a", "b"], "encoding_format": "base64"}), found, "m")
    assert [row["embedding"] for row in numbers["data"]] == [[0.25, -1.0], [3.0, 4.0]]
    for plain, coded in zip(numbers["data"], packed["data"], strict=True):
        assert np.frombuffer(base64.b64decode(coded["embedding"]), "<f4").tolist() == plain["embedding"]
    assert numbers["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert (usage.input_tokens, usage.output_tokens) == (5, 0)


def vectors(*indices: object) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": [float(place)]} for place, index in enumerate(indices)]}


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    body = vectors(*reversed(range(12)))
    embedding.check_order(body, ["text"] * 12)
    assert [item["index"] for item in body["data"]] == list(range(12))
    assert body["data"][0]["embedding"] == [11.0]


def test_a_provider_that_names_no_index_keeps_the_order() -> None:
    body = {"data": [{"embedding": [0.0]}, {"embedding": [1.0]}]}
    embedding.check_order(body, ["a", "b"])
    assert [item["index"] for item in body["data"]] == [0, 1]


@pytest.mark.parametrize("given", ["text", ["text"], [1, 2, 3], [[1, 2, 3]]])
def test_one_input_is_one_vector_in_every_form(given: object) -> None:
    embedding.check_order(vectors(0), given)
    with pytest.raises(Malformed, match="expected 1 embeddings, got 2"):
        embedding.check_order(vectors(0, 1), given)


@pytest.mark.parametrize("indices", [(0,), (0, 1, 2), (0, 0), (1, 2), ("0", "1"), (0, None)])
def test_vectors_that_cant_be_matched_to_the_inputs_are_malformed(indices: tuple[object, ...]) -> None:
    with pytest.raises(Malformed):
        embedding.check_order(vectors(*indices), ["a", "b"])


def test_half_a_character_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"body.input\[1\]: not valid Unicode"):
        embedding.read({"input": ["a", "\ud83d"]})


def test_vectors_that_came_as_numbers_are_packed_and_others_stay() -> None:
    body = {"data": [{"embedding": [0.5, 0.25]}, {"embedding": "AAAA"}]}
    embedding.pack(body)
    assert [item["embedding"] for item in body["data"]] == ["AAAAPwAAgD4=", "AAAA"]


def test_a_vector_with_what_is_no_number_is_malformed() -> None:
    with pytest.raises(Malformed, match="not a number"):
        embedding.pack({"data": [{"embedding": [0.5, None]}]})
