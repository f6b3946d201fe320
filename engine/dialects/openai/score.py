"""Scores of pairs next to the OpenAI wire: vLLM's `POST /score`, for the task sentence-similarity.

The canonical request is Hugging Face's: `inputs` with `source_sentence` and `sentences`; its reply here is `outputs`, a
number for each sentence. vLLM's is `text_1` and `text_2`; its reply `data`, with `index` and `score`. Source: vLLM's
entrypoints/pooling/scoring/protocol.py.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest, Malformed
from engine.dialects.common.error_body import excerpt


def score_body(body: dict[str, Any]) -> dict[str, Any]:
    """The canonical body as vLLM needs it. Raises InvalidRequest."""
    inputs = body.get("inputs")
    one = inputs.get("source_sentence") if type(inputs) is dict else None
    many = inputs.get("sentences") if type(inputs) is dict else None
    if type(one) is not str or type(many) is not list or not many:
        raise InvalidRequest("body.inputs: expected source_sentence, a text, and sentences, a list of texts")
    parameters = body.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise InvalidRequest("body.parameters: expected an object")
    rest = {name: value for name, value in body.items() if name not in ("inputs", "parameters")}
    return {**rest, **(parameters or {}), "text_1": one, "text_2": many}


def read_scores(body: dict[str, Any], content: bytes) -> dict[str, Any]:
    """The canonical reply. Raises Malformed."""
    entries = body.get("data")
    scores: dict[int, float] = {}
    for entry in entries if type(entries) is list else ():
        if type(entry) is dict and type(entry.get("index")) is int and type(entry.get("score")) in (int, float):
            scores[entry["index"]] = entry["score"]
    if not scores or type(entries) is not list or sorted(scores) != list(range(len(entries))):
        raise Malformed(f"HTTP 200: the reply does not have a score for each sentence: {excerpt(content)}")
    rest = {name: value for name, value in body.items() if name not in ("data", "object")}
    return {**rest, "outputs": [scores[index] for index in range(len(scores))]}


def read_score_request(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the canonical form of a client's request. Raises InvalidRequest."""
    names = next((names for names in _NAMES if names[0] in body and names[1] in body), None)
    if names is None:
        raise InvalidRequest("body.text_1: expected a text; and body.text_2: a text or a list of texts")
    one, many = body[names[0]], body[names[1]]
    if type(one) is list and len(one) == 1:
        one = one[0]
    many = [many] if type(many) is str else many
    if type(one) is not str or type(many) is not list or not many:
        raise InvalidRequest(f"body.{names[0]}: expected one text; and body.{names[1]}: a text or a list of texts")
    rest = {name: value for name, value in body.items() if name not in names}
    return {**rest, "inputs": {"source_sentence": one, "sentences": many}}


def score_reply(body: dict[str, Any], model: str) -> dict[str, Any]:
    """A canonical reply as a client needs it."""
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(body["outputs"])]
    rest = {name: value for name, value in body.items() if name != "outputs"}
    return {"object": "list", "model": model, **rest, "data": data}


_NAMES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""All the names that vLLM takes."""
