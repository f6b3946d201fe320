"""Answers of Text Embeddings Inference in canonical words. Source: the server's OpenAPI document; its router
(router/src/http/server.rs) for the headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.dialects.client import Reply
from engine.dialects.common.json_body import lenient, positive
from engine.dialects.discovery import DiscoveryReply

_HEADER_TOKENS = "x-compute-tokens"
_CAN = {
    "embedding": frozenset(("embedding", "token-embedding", "sparse-embedding", "sentence-similarity")),
    "classifier": frozenset(("text-classification",)),
    "reranker": frozenset(("rerank", "text-classification")),
}
"""`model_type` → what the server lets such a model do."""


def canonical(task: str, body: list[Any], headers: Mapping[str, str]) -> Reply | None:
    """Returns the reply; None if it is not of its task."""
    if not _CHECKS[task](body):
        return None
    if task == "embedding":
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(body)]
        return _counted({"object": "list", "data": data, "model": ""}, headers)
    if task == "rerank":
        return _counted({"object": "list", "results": list(map(_ranked, body))}, headers)
    return _counted({"object": task, "model": "", "outputs": body}, headers)


def server_info(answers: Sequence[DiscoveryReply]) -> ServerInfo:
    """From /info."""
    info = lenient(answers[0].content) if answers[0].status == 200 else None
    if type(info) is not dict:
        return ServerInfo()
    kind = next(iter(info["model_type"]), "") if type(info.get("model_type")) is dict else ""
    length, most = positive(info.get("max_input_length")), positive(info.get("max_client_batch_size"))
    said = [f"a model for {kind}"] if kind in _CAN else []
    said += [f"{length} tokens a text"] if length else []
    said += [f"{most} texts a call"] if most else []
    cuts = info.get("auto_truncate") is True
    return ServerInfo(
        context_length=length,
        max_inputs=most,
        cuts=cuts,
        tasks=_CAN.get(kind, frozenset()),
        found=", ".join([f"TEI {info.get('version') or ''}".strip(), *said] + (["cuts longer texts"] if cuts else [])),
    )


def _are_vectors(body: list[Any]) -> bool:
    return all(type(vector) is list and vector for vector in body)


def _are_lists_of_vectors(body: list[Any]) -> bool:
    return all(type(rows) is list and rows and _are_vectors(rows) for rows in body)


def _are_sparse(body: list[Any]) -> bool:
    return all(
        type(vector) is list
        and all(
            type(each) is dict and type(each.get("index")) is int and type(each.get("value")) in (int, float)
            for each in vector
        )
        for vector in body
    )


def _are_predictions(body: list[Any]) -> bool:
    rows = body if type(body[0]) is list else [body]
    return all(
        type(row) is list
        and row
        and all(
            type(each) is dict and type(each.get("label")) is str and type(each.get("score")) in (int, float)
            for each in row
        )
        for row in rows
    )


def _are_numbers(body: list[Any]) -> bool:
    return all(type(each) in (int, float) for each in body)


def _are_ranks(body: list[Any]) -> bool:
    return all(
        type(each) is dict and type(each.get("index")) is int and type(each.get("score")) in (float, int)
        for each in body
    )


_CHECKS: dict[str, Callable[[list[Any]], bool]] = {
    "embedding": _are_vectors,
    "rerank": _are_ranks,
    "token-embedding": _are_lists_of_vectors,
    "sparse-embedding": _are_sparse,
    "text-classification": _are_predictions,
    "sentence-similarity": _are_numbers,
}


def _ranked(entry: dict[str, Any]) -> dict[str, Any]:
    result = {"index": entry["index"], "relevance_score": entry["score"]}
    if type(entry.get("text")) is str:
        result["document"] = {"text": entry["text"]}
    return result


def _counted(body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
    """The reply with its usage, which the native paths tell in a header."""
    said = headers.get(_HEADER_TOKENS, "")
    if not (said.isascii() and said.isdigit()):
        return Reply(body)
    usage = Usage(int(said[:18]), 0)
    body["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return Reply(body, usage)
