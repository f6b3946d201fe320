"""Task `rerank`: documents in the order of their relevance to a query. The form is Cohere's and vLLM's."""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest, Malformed, nearest
from engine.core.usage import Usage
from engine.tasks import finite
from engine.tasks.pipelines import Ask

_FIELDS = frozenset(("query", "documents", "top_n", "return_documents"))
_NO_EFFECT = frozenset(("model", "user"))


def read(task: str, body: dict[str, Any]) -> Ask:
    """Each document with the query, for a model in this process. Raises InvalidRequest with the field's path."""
    for name in sorted(body.keys() - _FIELDS - _NO_EFFECT):
        if body[name] is not None:
            raise InvalidRequest(f"body.{name}: not supported by a model in this process; {nearest(name, _FIELDS)}")
    query, documents, top_n = body.get("query"), body.get("documents"), body.get("top_n")
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequest("body.query: expected text")
    if not isinstance(documents, list) or not documents:
        raise InvalidRequest("body.documents: expected a list with at least one text")
    for index, document in enumerate(documents):
        if not isinstance(_text(document), str):
            raise InvalidRequest(f"body.documents[{index}]: expected text, or an object with text")
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise InvalidRequest(f"body.top_n: expected a whole number of at least 1, got {top_n!r}")
    pairs = [{"text": query, "text_pair": _text(document)} for document in documents]
    return Ask(pairs, False, {}, "body.documents", "body")


def reply(task: str, model: str, outputs: list[Any], body: dict[str, Any]) -> tuple[dict[str, Any], Usage]:
    """The canonical reply, from the score and the tokens of each pair."""
    results = [{"index": index, "relevance_score": each["score"]} for index, each in enumerate(outputs)]
    usage = Usage(sum(each["tokens"] for each in outputs))
    made: dict[str, Any] = {"object": "list", "results": results, "model": model}
    complete(made, body, model)
    made["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return made, usage


def complete(reply: dict[str, Any], asked: dict[str, Any], model: str) -> None:
    """Brings a provider's reply into the form that was requested: the best first, `top_n` of them, with the documents'
    texts or without. Raises Malformed unless each result is for a document, and for one that no other is for.

    A provider that names documents by their text alone leaves `index` out; it is found by the text. Providers that know
    no `top_n` send all results.
    """
    texts = [_text(document) for document in asked.get("documents") or ()]
    results = reply["results"]
    _find_indices(results, texts)
    indices = [result["index"] for result in results]
    if len(set(indices)) != len(indices) or not all(0 <= index < len(texts) for index in indices):
        shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
        raise Malformed(f"HTTP 200: the results' index must be 0 to {len(texts) - 1}, each once; got {shown}")
    finite.check_scores(results)
    top_n = asked.get("top_n")
    count = min(top_n, len(texts)) if type(top_n) is int and top_n > 0 else len(texts)
    if len(results) < count:
        raise Malformed(f"HTTP 200: expected {count} results, got {len(results)}")
    results.sort(key=lambda result: -result["relevance_score"])
    del results[count:]
    wanted = asked.get("return_documents")
    for result in results:
        if wanted is False:
            result.pop("document", None)
        elif wanted and result.get("document") is None:
            result["document"] = {"text": texts[result["index"]]}
    reply.setdefault("model", model)


def _find_indices(results: list[dict[str, Any]], texts: list[Any]) -> None:
    unused: dict[Any, list[int]] | None = None
    for result in results:
        if result.get("index") is not None:
            continue
        if unused is None:
            unused = {}
            for index in reversed(range(len(texts))):
                unused.setdefault(texts[index], []).append(index)
        found = unused.get(_text(result.get("document")))
        if not found:
            raise Malformed("HTTP 200: a result is for a document that was not sent")
        result["index"] = found.pop()


def _text(document: Any) -> Any:
    return document.get("text") if isinstance(document, dict) else document
