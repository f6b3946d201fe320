"""vLLM's scores of pairs, as its documents and its scoring/protocol.py have them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest, Malformed
from engine.dialects.openai.client import OpenAIDialect
from engine.dialects.openai.server import OpenAIServerDialect
from engine.dialects.server import ClientCall

INPUTS = {"source_sentence": "a", "sentences": ["b", "c"]}
REPLY = {
    "id": "score-1",
    "object": "list",
    "created": 1,
    "model": "m",
    "data": [{"index": 1, "object": "score", "score": 0.25}, {"index": 0, "object": "score", "score": 0.75}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8, "completion_tokens": 0},
}


def test_a_pair_is_asked_for_by_vllms_names() -> None:
    body = {"inputs": INPUTS, "parameters": {"truncate_prompt_tokens": 9}}
    call = OpenAIDialect().encode("sentence-similarity", body, model="m", stream=False)
    assert call.path == "/score"
    assert msgspec.json.decode(call.content) == {
        "text_1": "a", "text_2": ["b", "c"], "truncate_prompt_tokens": 9, "model": "m",
    }  # fmt: skip


def test_scores_come_in_the_order_of_the_sentences() -> None:
    reply = OpenAIDialect().decode("sentence-similarity", 200, {}, msgspec.json.encode(REPLY))
    assert reply.body["outputs"] == [0.75, 0.25]
    assert reply.usage is not None
    assert reply.usage.input_tokens == 8


@pytest.mark.parametrize("data", [None, [], [{"index": 1, "score": 0.5}], [{"index": 0}]])
def test_a_reply_without_a_score_for_each_is_malformed(data: Any) -> None:
    with pytest.raises(Malformed):
        OpenAIDialect().decode("sentence-similarity", 200, {}, msgspec.json.encode({**REPLY, "data": data}))


@pytest.mark.parametrize("inputs", [None, "a", {"source_sentence": "a"}, {"source_sentence": 1, "sentences": ["b"]}])
def test_a_request_without_its_sentences_is_refused(inputs: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.inputs"):
        OpenAIDialect().encode("sentence-similarity", {"inputs": inputs}, model="m", stream=False)


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "a", "text_2": ["b", "c"]},
        {"text_1": ["a"], "text_2": ["b", "c"]},
        {"queries": "a", "documents": ["b", "c"]},
    ],
)
def test_a_client_may_ask_in_any_of_vllms_ways(body: dict[str, Any]) -> None:
    server = OpenAIServerDialect()
    call = server.read("/v1/score", {}, {}, msgspec.json.encode({"model": "m", **body}))
    assert (call.task, call.body) == ("sentence-similarity", {"model": "m", "inputs": INPUTS})


def test_a_client_gets_vllms_form() -> None:
    call = ClientCall("sentence-similarity", {}, False, "m", None)
    reply = msgspec.json.decode(OpenAIServerDialect().reply(call, {"outputs": [0.75, 0.25]}))
    assert [(each["index"], each["score"]) for each in reply["data"]] == [(0, 0.75), (1, 0.25)]


def test_a_client_that_asks_many_against_many_is_refused() -> None:
    content = msgspec.json.encode({"text_1": ["a", "b"], "text_2": ["c", "d"]})
    with pytest.raises(InvalidRequest, match=r"body\.text_1: expected one text"):
        OpenAIServerDialect().read("/score", {}, {}, content)
