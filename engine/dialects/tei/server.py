"""Text Embeddings Inference's wire, as a server speaks it: /embed, /embed_all, /embed_sparse, /predict, /similarity,
/rerank, /info, /health. Its OpenAI path is the OpenAI dialect's.

Source: the server's OpenAPI document (huggingface.github.io/text-embeddings-inference) and its router.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json, retry_after
from engine.dialects.common.server import client_key
from engine.dialects.server import ClientCall, StreamEncoder

_TASKS = {
    "/embed": "embedding",
    "/rerank": "rerank",
    "/embed_all": "token-embedding",
    "/embed_sparse": "sparse-embedding",
    "/predict": "text-classification",
    "/similarity": "sentence-similarity",
}
_DEFAULTS: dict[str, Any] = {
    "truncate": False, "normalize": True, "truncation_direction": "Right", "raw_scores": False, "prompt_name": None,
}  # fmt: skip
"""Flags of the server's own; where they say what the canonical form means anyway, they are left out."""
_STATUSES = {
    "throttled": (429, "Overloaded"),
    "overloaded": (429, "Overloaded"),
    "queue_full": (429, "Overloaded"),
    "circuit_open": (429, "Overloaded"),
    "invalid_request": (422, "Validation"),
    "too_long": (422, "Validation"),
}
"""Status and `error_type` by the word of the failure vocabulary; others are the backend's, with their own status."""
_encode = msgspec.json.Encoder().encode


class TeiServerDialect:
    """Text Embeddings Inference's wire, for clients of ours."""

    routes = {("POST", path): task for path, task in _TASKS.items()} | {("GET", "/info"): "models"}
    pages = frozenset((("GET", "/health"),))
    stream_type = "application/json"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        wire = asked_json(content)
        task = _TASKS[path.partition("?")[0]]
        warnings: list[str] = []
        if task == "embedding":
            body = {"input": _texts(wire), **_flags(wire, ("inputs", "dimensions"), warnings)}
            if wire.get("dimensions") is not None:
                body["dimensions"] = wire["dimensions"]
        elif task == "rerank":
            body = {**_ranking(wire), **_flags(wire, ("query", "texts", "return_text"), warnings)}
        else:
            given = wire
            if task == "sentence-similarity":
                given = wire.get("parameters") or {}
                if type(given) is not dict:
                    raise InvalidRequest("body.parameters: expected an object")
            body = {"inputs": _INPUTS.get(task, _texts)(wire)}
            parameters = _flags(given, ("inputs",), warnings)
            if parameters:
                body["parameters"] = parameters
        return ClientCall(task, body, False, None, client_key(headers), warnings)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        if call.task == "embedding":
            return _encode([item["embedding"] for item in body["data"]])
        if call.task != "rerank":
            return _encode(body["outputs"])
        ranks: list[dict[str, Any]] = []
        for result in body["results"]:
            rank = {"index": result["index"], "score": result["relevance_score"]}
            document = result.get("document")
            if document is not None:
                rank["text"] = document.get("text") if type(document) is dict else document
            ranks.append(rank)
        return _encode(ranks)

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        raise InvalidRequest(f"task: an answer to {call.task} can't be streamed")

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        headers = retry_after(error)
        status, kind = _STATUSES.get(error.kind, (error.status_code, "Backend"))
        return status, headers, _encode({"error": error.message, "error_type": kind})

    def models(self, names: list[str]) -> bytes:
        """The server's description of itself; such a server has one model, so it is the first."""
        name = names[0] if names else ""
        return _encode({"model_id": name, "served_model_name": name})

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """The server's health."""
        return 200, b""


def _flags(wire: dict[str, Any], known: tuple[str, ...], warnings: list[str]) -> dict[str, Any]:
    """The flags that request something; what is not known is warned of."""
    found: dict[str, Any] = {}
    for name, value in wire.items():
        if name in _DEFAULTS:
            value = value.capitalize() if name == "truncation_direction" and type(value) is str else value
            if value is not None and value != _DEFAULTS[name]:
                found[name] = value
        elif name not in known and value:
            warnings.append(f"body.{name} has no effect here")
    return found


def _texts(wire: dict[str, Any]) -> Any:
    texts = wire.get("inputs")
    if not isinstance(texts, str | list) or not texts:
        raise InvalidRequest("body.inputs: expected a text or a list of texts")
    return texts


def _ranking(wire: dict[str, Any]) -> dict[str, Any]:
    query, texts = wire.get("query"), wire.get("texts")
    if type(query) is not str or type(texts) is not list or not texts:
        raise InvalidRequest("body.query, body.texts: expected a text and a list of texts")
    return {"query": query, "documents": texts, "return_documents": wire.get("return_text") is True}


def _sequences(wire: dict[str, Any]) -> Any:
    """Returns what is classified: a text, a pair of them, or a batch of lists that hold one or two."""
    given = wire.get("inputs")
    if type(given) is str and given:
        return given
    if type(given) is list and given and all(type(each) is str for each in given) and len(given) == 2:
        return {"text": given[0], "text_pair": given[1]}
    if type(given) is list and given and all(map(_is_sequence, given)):
        return [each[0] if len(each) == 1 else {"text": each[0], "text_pair": each[1]} for each in given]
    raise InvalidRequest("body.inputs: expected a text, a pair of texts, or a batch of lists with one or two texts")


def _is_sequence(given: Any) -> bool:
    return type(given) is list and len(given) in (1, 2) and all(type(text) is str for text in given)


def _compared(wire: dict[str, Any]) -> Any:
    given = wire.get("inputs")
    sentences = given.get("sentences") if type(given) is dict else None
    if type(given) is not dict or type(given.get("source_sentence")) is not str or type(sentences) is not list:
        raise InvalidRequest("body.inputs: expected a source_sentence and a list of sentences")
    if not sentences or not all(type(each) is str for each in sentences):
        raise InvalidRequest("body.inputs.sentences: expected a list of texts that is not empty")
    return {"source_sentence": given["source_sentence"], "sentences": sentences}


_INPUTS = {"text-classification": _sequences, "sentence-similarity": _compared}
