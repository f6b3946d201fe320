"""Answers of the simulated provider in the canonical form: OpenAI's bodies. Every text begins with `[simulated]`."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.tasks import rerank
from engine.tasks.usage import openai_usage

TASKS = frozenset({"chat", "completion", "embedding", "rerank", "token-count"})
COMPUTED = frozenset({"embedding", "rerank", "token-count"})
"""Tasks whose answer is not text: it depends on the inputs alone, costs no output tokens, and is never streamed."""
_SCALE = 32768.0
_FIRST = "[simulated]"


def word(index: int) -> str:
    """A token of an answer, counted from 0."""
    return f" word{index + 1}" if index else _FIRST


@lru_cache(maxsize=4096)
def text(tokens: int, begun: int = 0) -> str:
    """So many tokens of an answer, after those that are there already."""
    return "".join(map(word, range(begun, begun + tokens)))


def begun(task: str, body: dict[str, Any]) -> int | None:
    """Returns the tokens of a simulated answer that a request continues; None for a request without such a beginning.
    A chat's beginning is a last turn of the assistant, a completion's is the end of its prompt."""
    if task == "chat":
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        if not isinstance(last, dict) or last.get("role") != "assistant":
            return None
        content = last.get("content")
    else:
        content = body.get("prompt") if task == "completion" else None
    _, found, rest = content.rpartition(_FIRST) if isinstance(content, str) else ("", "", "")
    if found:
        return 1 + len(rest.split())
    return 0 if task == "chat" else None


def input_tokens(task: str, body: dict[str, Any]) -> int:
    """Tokens of a request's prompt, inputs or messages: a simulated provider counts words."""
    if task in ("chat", "token-count"):
        messages = body.get("messages")
        if not isinstance(messages, list):
            return 0
        return sum(_words(each.get("content")) for each in messages if isinstance(each, dict))
    if task == "rerank":
        return _words(body.get("query")) + _words(body.get("documents"))
    return _words(body.get("prompt" if task == "completion" else "input"))


def output_limit(task: str, body: dict[str, Any]) -> int | None:
    """Returns the request's own limit of output tokens; 0 if the answer is not text, None without a limit."""
    if task in COMPUTED:
        return 0
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) and limit > 0 else None


def whole(
    task: str, answer_id: str, created: int, model: str, content: str, finish_reason: str, usage: Usage
) -> dict[str, Any]:
    """The reply to a chat or completion."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    if task == "chat":
        choice["message"] = {"role": "assistant", "content": content}
    else:
        choice["text"] = content
    return {
        "id": answer_id,
        "object": "chat.completion" if task == "chat" else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": openai_usage(usage),
    }


def chunk(
    task: str, answer_id: str, created: int, model: str, content: str | None, finish_reason: str | None = None
) -> dict[str, Any]:
    """A piece of a streamed answer; content None is the piece that ends it."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    if task == "chat":
        choice["delta"] = {} if content is None else {"role": "assistant", "content": content}
    else:
        choice["text"] = content or ""
    return {
        "id": answer_id,
        "object": "chat.completion.chunk" if task == "chat" else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
    }


def check(task: str, body: dict[str, Any]) -> None:
    """Raises InvalidRequest for a body from which no answer can be computed."""
    if task == "embedding":
        _inputs(body)
    elif task == "rerank":
        documents = body.get("documents")
        if not isinstance(documents, list) or not documents:
            raise InvalidRequest("body.documents: expected a list of texts, at least one")
        if not isinstance(body.get("query"), str):
            raise InvalidRequest("body.query: expected a text")


def computed(task: str, body: dict[str, Any], dimensions: int, model: str, usage: Usage) -> dict[str, Any]:
    """The reply to a body that `check` let through, of a task of `COMPUTED`."""
    if task == "rerank":
        return _ranking(body, model, usage)
    if task == "token-count":
        return {"object": "token-count", "model": model, "input_tokens": input_tokens(task, body)}
    data = [
        {"object": "embedding", "index": index, "embedding": vector(each, dimensions)}
        for index, each in enumerate(_inputs(body))
    ]
    return {"object": "list", "model": model, "data": data, "usage": openai_usage(usage)}


def vector(content: str, dimensions: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    digest = hashlib.shake_256(content.encode()).digest(2 * dimensions)
    # An odd number is never 0, so that the vector has a length.
    raw = [(value | 1) / _SCALE for value in struct.unpack(f"<{dimensions}h", digest)]
    norm = sum(x * x for x in raw) ** 0.5
    return [x / norm for x in raw]


def _inputs(body: dict[str, Any]) -> list[str]:
    """The texts that are to be embedded. Raises InvalidRequest."""
    value = body.get("input")
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise InvalidRequest("body.input: expected a text or a list of texts, none of them empty")
    return texts


def _ranking(body: dict[str, Any], model: str, usage: Usage) -> dict[str, Any]:
    """A document's score is the share of the query's words that it has."""
    asked = set(body["query"].lower().split())
    results = []
    for index, document in enumerate(body["documents"]):
        content = document.get("text") if isinstance(document, dict) else document
        found = asked & set(content.lower().split()) if isinstance(content, str) else set()
        results.append({"index": index, "relevance_score": len(found) / max(1, len(asked))})
    reply = {"object": "list", "model": model, "results": results, "usage": openai_usage(usage)}
    rerank.complete(reply, body, model)
    return reply


def _words(content: Any) -> int:
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        return sum(_words(part.get("text") if isinstance(part, dict) else part) for part in content)
    return 0
