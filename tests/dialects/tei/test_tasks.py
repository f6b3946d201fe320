from __future__ import annotations

from typing import Any

import msgspec
import pytest
from huggingface_hub import AsyncInferenceClient
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest, Malformed
from engine.core.usage import Usage
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.server import ClientCall
from engine.dialects.tei.client import TeiDialect
from engine.dialects.tei.server import TeiServerDialect
from tests.servers.dialect_server import DialectServer

CLIENT, SERVER = TeiDialect(lambda: 0.0), TeiServerDialect()
# TEI's OpenAPI document, the examples of `Info`.
INFO: dict[str, Any] = {
    "model_id": "thenlper/gte-base", "model_dtype": "float16", "model_type": {"embedding": {"pooling": "cls"}},
    "max_concurrent_requests": 128, "max_input_length": 512, "max_batch_tokens": 2048, "max_client_batch_size": 32,
    "auto_truncate": False, "tokenization_workers": 4, "version": "1.6.0",
}  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
FLAGS = {"truncate": True, "truncation_direction": "Left", "prompt_name": "query"}


def sent(task: str, inputs: Any, **parameters: Any) -> tuple[str, Any]:
    call = CLIENT.encode(task, {"inputs": inputs, "parameters": parameters}, model="m", stream=False)
    return call.path, msgspec.json.decode(call.content)


def server_info(**changed: Any) -> Any:
    return CLIENT.server_info("m", [DiscoveryReply(200, msgspec.json.encode({**INFO, **changed}))])


@pytest.mark.parametrize(("task", "path"), [("token-embedding", "/embed_all"), ("sparse-embedding", "/embed_sparse")])
def test_texts_are_embedded_with_their_flags(task: str, path: str) -> None:
    assert sent(task, ["a", "b"], **FLAGS) == (path, {"inputs": ["a", "b"], **FLAGS})


@pytest.mark.parametrize(
    ("inputs", "wire"),
    [
        ("a", "a"),
        ({"text": "a", "text_pair": "b"}, ["a", "b"]),
        (["a", "b"], [["a"], ["b"]]),
        ([{"text": "a", "text_pair": "b"}, "c"], [["a", "b"], ["c"]]),
    ],
)
def test_what_is_classified_is_a_text_a_pair_or_a_batch_of_them(inputs: Any, wire: Any) -> None:
    assert sent("text-classification", inputs, function_to_apply="none") == (
        "/predict",
        {"inputs": wire, "raw_scores": True},
    )


def test_a_sentence_is_compared() -> None:
    inputs = {"source_sentence": "a", "sentences": ["b", "c"]}
    assert sent("sentence-similarity", inputs) == ("/similarity", {"inputs": inputs})
    assert sent("sentence-similarity", inputs, truncate=True)[1]["parameters"] == {
        "truncation_direction": "Right",
        "truncate": True,
    }


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "where"),
    [
        ("text-classification", "a", {"top_k": 3}, "body.parameters.top_k"),
        ("text-classification", "a", {"function_to_apply": "sigmoid"}, "body.parameters.function_to_apply"),
        ("token-embedding", "a", {"normalize": True}, "body.parameters.normalize"),
    ],
)
def test_what_would_be_lost_is_refused_or_warned_of(task: str, inputs: Any, parameters: Any, where: str) -> None:
    body = {"inputs": inputs, "parameters": parameters}
    with pytest.raises(InvalidRequest, match=where):
        CLIENT.encode(task, body, model="m", stream=False)
    assert CLIENT.encode(task, body, model="m", stream=False, drop_unsupported=True).warnings[0].startswith(where)


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("token-embedding", []),
        ("text-classification", None),
        ("text-classification", {"text": "a", "text_pair": 3}),
        ("text-classification", [["a", "b", "c"]]),
        ("sentence-similarity", "a"),
        ("sentence-similarity", {"source_sentence": "a", "sentences": []}),
    ],
)
def test_inputs_of_another_form_are_refused(task: str, inputs: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.inputs"):
        sent(task, inputs)


REPLIES: list[tuple[str, Any]] = [
    ("token-embedding", [[[0.5, 1.0], [2.0, 3.0]]]),
    ("sparse-embedding", [[{"index": 7, "value": 0.5}], []]),
    ("text-classification", [{"label": "joy", "score": 0.9}]),
    ("text-classification", [[{"label": "joy", "score": 0.9}], [{"label": "joy", "score": 0.1}]]),
    ("sentence-similarity", [0.25, 1]),
]


@pytest.mark.parametrize(("task", "reply"), REPLIES)
def test_a_reply_stands_under_outputs_with_its_usage(task: str, reply: Any) -> None:
    found = CLIENT.decode(task, 200, {"x-compute-tokens": "7"}, msgspec.json.encode(reply))
    assert (found.body["outputs"], found.usage) == (reply, Usage(7, 0))


@pytest.mark.parametrize(
    ("task", "reply"),
    [
        ("token-embedding", [[0.5]]),
        ("sparse-embedding", [[{"index": 7}]]),
        ("text-classification", [{"label": "joy"}]),
        ("text-classification", [[]]),
        ("sentence-similarity", ["x"]),
        ("sentence-similarity", []),
        ("sentence-similarity", {}),
    ],
)
def test_a_reply_to_something_else_is_malformed(task: str, reply: Any) -> None:
    with pytest.raises(Malformed):
        CLIENT.decode(task, 200, {}, msgspec.json.encode(reply))


def test_the_servers_limits_are_read() -> None:
    found = server_info()
    assert (found.context_length, found.max_inputs, found.cuts) == (512, 32, False)
    assert found.found == "TEI 1.6.0, a model for embedding, 512 tokens a text, 32 texts a call"


@pytest.mark.parametrize(
    ("kind", "tasks"),
    [
        ("embedding", {"embedding", "token-embedding", "sparse-embedding", "sentence-similarity"}),
        ("classifier", {"text-classification"}),
        ("reranker", {"rerank", "text-classification"}),
        ("oracle", set()),
    ],
)
def test_the_models_type_says_what_it_can_do(kind: str, tasks: set[str]) -> None:
    assert server_info(model_type={kind: {}}).tasks == tasks


def test_a_server_that_cuts_refuses_no_length() -> None:
    assert server_info(auto_truncate=True).cuts


@pytest.mark.parametrize(
    "answer",
    [DiscoveryReply(404, b""), DiscoveryReply(200, b"<html>"), DiscoveryReply(200, b"[]"), DiscoveryReply(200, b"{}")],
)
def test_a_server_that_does_not_describe_itself_is_taken_as_it_is(answer: DiscoveryReply) -> None:
    found = CLIENT.server_info("m", [answer])
    assert (found.context_length, found.max_inputs, found.tasks) == (None, None, frozenset())


@given(st.lists(texts | st.tuples(texts, texts), min_size=1, max_size=3), st.booleans())
def test_a_classification_comes_back_as_it_was_sent(given: list[Any], raw: bool) -> None:
    inputs = [each if type(each) is str else {"text": each[0], "text_pair": each[1]} for each in given]
    body = {"inputs": inputs, **({"parameters": {"raw_scores": True}} if raw else {})}
    wire = CLIENT.encode("text-classification", body, model="m", stream=False)
    assert SERVER.read(wire.path, {}, {}, wire.content).body == body


@given(texts, st.lists(texts, min_size=1, max_size=3), st.dictionaries(st.just("prompt_name"), texts))
def test_a_similarity_comes_back_as_it_was_sent(source: str, sentences: list[str], parameters: dict[str, str]) -> None:
    inputs = {"source_sentence": source, "sentences": sentences}
    body = {"inputs": inputs, **({"parameters": parameters} if parameters else {})}
    wire = CLIENT.encode("sentence-similarity", body, model="m", stream=False)
    assert SERVER.read(wire.path, {}, {}, wire.content).body == body


@pytest.mark.parametrize(("task", "reply"), REPLIES)
def test_a_reply_comes_back_as_it_was_given(task: str, reply: Any) -> None:
    call = ClientCall(task, {}, False, None, None)
    content = SERVER.reply(call, {"outputs": reply})
    assert CLIENT.decode(task, 200, {}, content).body["outputs"] == reply


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/predict", {"inputs": []}),
        ("/predict", {"inputs": [["a", "b", "c"]]}),
        ("/predict", {"inputs": ["a", "b", "c"]}),
        ("/similarity", {"inputs": {"sentences": ["a"]}}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}),
        ("/embed_all", {}),
    ],
)
def test_what_can_not_be_understood_is_refused(path: str, wire: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\."):
        SERVER.read(path, {}, {}, msgspec.json.encode(wire))


async def test_hugging_faces_client_compares() -> None:
    async def answer(call: ClientCall) -> dict[str, Any]:
        return {"outputs": [0.5, 0.25]}

    async with DialectServer("tei", answer, models=["m"]) as server:
        client = AsyncInferenceClient(model=f"{server.url}/similarity", token="k")
        assert await client.sentence_similarity("a", other_sentences=["b", "c"]) == [0.5, 0.25]
        assert server.calls[0].body["inputs"] == {"source_sentence": "a", "sentences": ["b", "c"]}
