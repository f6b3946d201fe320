"""Canonical bodies in the words of Text Embeddings Inference: a path and its body for each task.

Source: the server's OpenAPI document, `EmbedRequest`, `EmbedAllRequest`, `EmbedSparseRequest`, `PredictRequest`,
`SimilarityRequest`, `RerankRequest`, `OpenAICompatRequest`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported

_FLAGS = ("truncate", "truncation_direction", "prompt_name")
_NATIVE = ("normalize", *_FLAGS)
"""The fields that only /embed knows."""
_RERANK = ("raw_scores", "truncate", "truncation_direction")
_COMMON = frozenset(("model", "stream", "stream_options"))
_RANKED = _COMMON | {"query", "documents", "top_n", "return_documents"}
"""The server ranks everything; the cut to `top_n` is made of its reply: engine.tasks.rerank."""
_TASK = _COMMON | {"inputs", "parameters"}

Write = Callable[[dict[str, Any], str, Unsupported], tuple[str, dict[str, Any]]]
"""Body, model and unsupported → path and wire body. Raises InvalidRequest."""


def _embedding(body: dict[str, Any], model: str, unsupported: Unsupported) -> tuple[str, dict[str, Any]]:
    texts = body.get("input")
    if not isinstance(texts, str | list) or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    native = {name: body[name] for name in _NATIVE if body.get(name) is not None}
    dimensions = {"dimensions": body["dimensions"]} if body.get("dimensions") is not None else {}
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {form!r} is not a format; one of: float, base64")
    for name, value in body.items():
        if name in ("input", "dimensions", "encoding_format") or name in native or name in _COMMON:
            continue
        if name == "user" and not native and value is not None:
            continue
        unsupported.lose_field(name, value)
    if native:
        # /embed sends numbers; the caller's base64 is made of them here: engine.tasks.embedding.
        return "/embed", {"inputs": texts, **_directed(native), **dimensions}
    user = {"user": body["user"]} if body.get("user") is not None else {}
    packed = {"encoding_format": form} if form else {}
    return "/v1/embeddings", {"model": model, "input": texts, **packed, **dimensions, **user}


def _rerank(body: dict[str, Any], model: str, unsupported: Unsupported) -> tuple[str, dict[str, Any]]:
    query, documents = body.get("query"), body.get("documents")
    if type(query) is not str:
        raise InvalidRequest("body.query: expected a text")
    if type(documents) is not list or not documents:
        raise InvalidRequest("body.documents: expected a list of texts")
    wire: dict[str, Any] = {"query": query, "texts": [_document(each, at) for at, each in enumerate(documents)]}
    if body.get("return_documents"):
        wire["return_text"] = True
    for name, value in body.items():
        if name in _RERANK and value is not None:
            wire[name] = value
        elif name not in _RANKED:
            unsupported.lose_field(name, value)
    return "/rerank", _directed(wire)


def _vectors(path: str) -> Write:
    """Of a task whose input is a text or a list of them."""

    def write(body: dict[str, Any], model: str, unsupported: Unsupported) -> tuple[str, dict[str, Any]]:
        texts = body.get("inputs")
        if not isinstance(texts, str | list) or not texts:
            raise InvalidRequest("body.inputs: expected a text or a list of texts")
        return path, {"inputs": texts, **_parameters(body, _FLAGS, unsupported)}

    return write


def _predict(body: dict[str, Any], model: str, unsupported: Unsupported) -> tuple[str, dict[str, Any]]:
    """A list is a batch, as at Hugging Face's pipelines; what the server takes for a pair is said with text_pair."""
    given = body.get("inputs")
    if type(given) is list and given:
        inputs: Any = [_sequence(each, f"body.inputs[{index}]") for index, each in enumerate(given)]
    else:
        inputs = _sequence(given, "body.inputs")
        inputs = inputs[0] if len(inputs) == 1 else inputs
    return "/predict", {"inputs": inputs, **_parameters(body, _RERANK, unsupported)}


def _similarity(body: dict[str, Any], model: str, unsupported: Unsupported) -> tuple[str, dict[str, Any]]:
    given = body.get("inputs")
    source, sentences = (given.get("source_sentence"), given.get("sentences")) if type(given) is dict else (None, None)
    if type(source) is not str or type(sentences) is not list or not all(type(each) is str for each in sentences):
        raise InvalidRequest("body.inputs: expected a source_sentence and a list of sentences")
    if not sentences:
        raise InvalidRequest("body.inputs.sentences: the list is empty. Next: put a text into it")
    wire: dict[str, Any] = {"inputs": {"source_sentence": source, "sentences": sentences}}
    parameters = _parameters(body, _FLAGS, unsupported)
    if parameters:
        # The server's own default is refused by its own schema when other parameters are there.
        wire["parameters"] = {"truncation_direction": "Right", **parameters}
    return "/similarity", wire


WRITES: dict[str, Write] = {
    "embedding": _embedding,
    "rerank": _rerank,
    "token-embedding": _vectors("/embed_all"),
    "sparse-embedding": _vectors("/embed_sparse"),
    "text-classification": _predict,
    "sentence-similarity": _similarity,
}


def _sequence(given: Any, where: str) -> list[str]:
    """A text, or two that belong together, such as a premise and a hypothesis."""
    texts = [given] if type(given) is str else given
    if type(given) is dict:
        texts = [given.get("text")] + ([given["text_pair"]] if given.get("text_pair") is not None else [])
    if type(texts) is not list or len(texts) not in (1, 2) or not all(type(each) is str for each in texts):
        raise InvalidRequest(f'{where}: expected a text, or {{"text": …, "text_pair": …}}')
    return texts


def _parameters(body: dict[str, Any], known: tuple[str, ...], unsupported: Unsupported) -> dict[str, Any]:
    """The fields of `parameters` that the server knows; the rest is lost, as is every other field of the body."""
    for name, value in body.items():
        if name not in _TASK:
            unsupported.lose_field(name, value)
    given = body.get("parameters") or {}
    if type(given) is not dict:
        raise InvalidRequest("body.parameters: expected an object")
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in known:
            found[name] = value
        elif name == "function_to_apply" and "raw_scores" in known and value == "none":
            found["raw_scores"] = True
        else:
            unsupported.lose(f"body.parameters.{name}")
    return _directed(found)


def _directed(wire: dict[str, Any]) -> dict[str, Any]:
    direction = wire.get("truncation_direction")
    if type(direction) is str:
        wire["truncation_direction"] = direction.capitalize()
    return wire


def _document(document: Any, index: int) -> str:
    text = document.get("text") if type(document) is dict and len(document) == 1 else document
    if type(text) is not str:
        raise InvalidRequest(f'body.documents[{index}]: TEI ranks text only: a text, or {{"text": …}} and nothing else')
    return text
