from __future__ import annotations

from typing import Any

import msgspec
import pytest
from huggingface_hub import AsyncInferenceClient
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError, InvalidRequest, Overloaded, ServerFailed, TooLong
from engine.dialects.server import ClientCall
from engine.dialects.tei.client import TeiDialect
from engine.dialects.tei.server import TeiServerDialect
from tests.servers.dialect_server import DialectServer

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)


def read(path: str, **wire: Any) -> ClientCall:
    return TeiServerDialect().read(path, {}, {"authorization": "Bearer k"}, msgspec.json.encode(wire))


def test_flags_that_ask_for_the_usual_are_left_out() -> None:
    call = read("/embed", inputs="x", truncate=False, normalize=True, truncation_direction="right", prompt_name=None)
    assert (call.task, call.body, call.key, call.stream) == ("embedding", {"input": "x"}, "k", False)


def test_what_is_not_known_is_warned_of() -> None:
    assert read("/embed", inputs="x", pooling="cls").warnings == ["body.pooling has no effect here"]


@pytest.mark.parametrize(
    ("path", "wire"),
    [("/embed", {}), ("/embed", {"inputs": []}), ("/rerank", {"query": "x"}), ("/rerank", {"texts": ["x"]})],
)
def test_what_can_not_be_understood_is_refused(path: str, wire: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"body\."):
        read(path, **wire)


@given(
    st.lists(texts, min_size=1, max_size=3),
    st.fixed_dictionaries(
        {"normalize": st.just(False)}, optional={"truncate": st.just(True), "dimensions": st.just(8)}
    ),
)
def test_an_embedding_comes_back_as_it_was_sent(inputs: list[str], more: dict[str, Any]) -> None:
    body = {"input": inputs, **more}
    wire = TeiDialect().encode("embedding", body, model="m", stream=False)
    assert TeiServerDialect().read(wire.path, {}, {}, wire.content).body == body


@given(texts, st.lists(texts, min_size=1, max_size=3), st.booleans())
def test_a_rerank_comes_back_as_it_was_sent(query: str, documents: list[str], wanted: bool) -> None:
    body = {"query": query, "documents": documents, "return_documents": wanted}
    wire = TeiDialect().encode("rerank", body, model="m", stream=False)
    assert TeiServerDialect().read(wire.path, {}, {}, wire.content).body == body


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1), st.none() | texts), min_size=1, max_size=4))
def test_results_come_back_as_they_were_given(ranks: list[tuple[int, float, str | None]]) -> None:
    results = [
        {"index": index, "relevance_score": score, **({"document": {"text": text}} if text is not None else {})}
        for index, score, text in ranks
    ]
    wire = TeiServerDialect().reply(read("/rerank", query="x", texts=["y"]), {"results": results})
    assert TeiDialect().decode("rerank", 200, {}, wire).body["results"] == results


@pytest.mark.parametrize(
    "error", [Overloaded("no room", retry_after_s=2), TooLong("`inputs` must have less than 5 tokens")]
)
def test_a_refusal_is_the_same_error_to_a_client(error: InferenceError) -> None:
    status, headers, content = TeiServerDialect().refusal(error)
    found = TeiDialect().error(status, headers, content)
    assert (type(found), found.retry_after_s) == (type(error), error.retry_after_s)


def test_the_backends_failures_keep_their_status() -> None:
    assert TeiServerDialect().refusal(ServerFailed("gone"))[0] == 502


async def test_hugging_faces_client_embeds() -> None:
    async def answer(call: ClientCall) -> dict[str, Any]:
        return {"data": [{"index": 0, "embedding": [0.5, 0.25]}]}

    async with DialectServer("tei", answer, models=["m"]) as server:
        client = AsyncInferenceClient(model=f"{server.url}/embed", token="k")
        vectors = await client.feature_extraction("x", normalize=False, truncate=True)
        assert vectors.tolist() == [[0.5, 0.25]]
        assert server.calls[0].body == {"input": "x", "normalize": False, "truncate": True}
