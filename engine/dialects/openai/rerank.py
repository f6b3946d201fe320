"""Rerank next to the OpenAI wire: `POST /rerank` as vLLM, OVMS, llama.cpp, LiteLLM, Jina and Cohere have it.

OpenAI has no such call. Its request is the same everywhere; replies differ in the place of the results (`results`,
`data`, a bare list) and in what a score is called. Sources: Cohere's API reference, "Rerank (v2)"; Jina's "Reranker
API"; Voyage's "Rerankers"; OVMS's "Cohere API rerank endpoint"; vLLM's entrypoints/pooling/scoring/protocol.py;
SGLang's "Rerank models"; llama.cpp's server README, "POST /reranking".
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import Malformed
from engine.dialects.common.error_body import excerpt

_SCORES = ("relevance_score", "score")


def plain_documents(body: dict[str, Any]) -> dict[str, Any]:
    """`body` with each document that is nothing but `{"text": …}` as that text, which every server reads."""
    documents = body.get("documents")
    if type(documents) is not list or not any(type(each) is dict for each in documents):
        return body
    plain = [
        each["text"] if type(each) is dict and len(each) == 1 and type(each.get("text")) is str else each
        for each in documents
    ]
    return {**body, "documents": plain}


def read_rerank(body: Any, content: bytes) -> dict[str, Any]:
    """The canonical reply: `results` of `index`, `relevance_score` and, where it came, `document`. Raises Malformed."""
    entries = body
    if type(body) is dict:
        entries = body.get("results") if body.get("results") is not None else body.get("data")
    if type(entries) is not list or not entries:
        raise Malformed(f"HTTP 200: the reply has no results: {excerpt(content)}")
    results = []
    for entry in entries:
        found = _result(entry)
        if found is None:
            raise Malformed(f"HTTP 200: a result has no index or no relevance_score: {excerpt(content)}")
        results.append(found)
    rest = body if type(body) is dict else {}
    reply = {name: value for name, value in rest.items() if name not in ("data", "results", "usage", "object")}
    reply |= {"object": "list", "results": results}
    usage = _usage(rest)
    if usage is not None:
        reply["usage"] = usage
    return reply


def _result(entry: Any) -> dict[str, Any] | None:
    if type(entry) is not dict or type(entry.get("index")) is not int:
        return None
    score = next((entry[name] for name in _SCORES if name in entry), None)
    if type(score) is not float and type(score) is not int:
        return None
    result = {"index": entry["index"], "relevance_score": score}
    document = entry.get("document")
    if document is not None:
        result["document"] = {"text": document} if type(document) is str else document
    return result


def _usage(body: dict[str, Any]) -> dict[str, Any] | None:
    """Tokens, where they are said: `usage`, with the total alone at Jina and Voyage; Cohere's `meta.tokens`."""
    usage = body.get("usage")
    if type(usage) is dict:
        if usage.get("prompt_tokens") is None and type(usage.get("total_tokens")) is int:
            return {**usage, "prompt_tokens": usage["total_tokens"]}
        return usage
    meta = body.get("meta")
    tokens = meta.get("tokens") if type(meta) is dict else None
    count = tokens.get("input_tokens") if type(tokens) is dict else None
    if type(count) is int or type(count) is float:
        return {"prompt_tokens": int(count), "total_tokens": int(count)}
    return None
