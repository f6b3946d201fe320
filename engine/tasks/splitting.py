"""A request with more texts than its server takes in one call: several requests, and one reply of theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.core.errors import Malformed
from engine.core.request import Request, Result
from engine.core.task_table import having
from engine.core.usage import Usage
from engine.tasks import rerank

_LISTS = having("split")
"""Task → the field with the list of texts, and that with their answers, where each text's answer is its own."""


def split(request: Request, most: int) -> list[Request]:
    """The requests with `most` texts at the most that it becomes; the request alone where it has no more."""
    task, body = request.task, request.body
    texts = _texts(task, body)
    # A list of numbers is one text, as its tokens.
    if len(texts) <= most or all(type(each) is int for each in texts):
        return [request]
    parts = [texts[start : start + most] for start in range(0, len(texts), most)]
    if task == "sentence-similarity":
        bodies = [{**body, "inputs": {**body["inputs"], "sentences": part}} for part in parts]
    else:
        rest = {name: value for name, value in body.items() if task != "rerank" or name != "top_n"}
        bodies = [{**rest, _LISTS[task][0]: part} for part in parts]
    return [replace(request, body=part) for part in bodies]


def join(request: Request, parts: list[Request], results: list[Result]) -> Result:
    """The result of the whole, from those of its parts. Raises Malformed where one does not fit."""
    task = request.task
    field = _LISTS[task][1]
    bodies = [result.body or {} for result in results]
    entries: list[Any] = []
    start = 0
    for part, body in zip(parts, bodies, strict=True):
        found, size = body[field], len(_texts(task, part.body))
        if len(found) != size:
            raise Malformed(f"HTTP 200: expected {size} answers in a part of the request, got {len(found)}")
        if field != "outputs":
            for entry in found:
                entry["index"] += start
        entries += found
        start += size
    whole = {**bodies[0], field: entries}
    whole.pop("usage", None)
    usages = [result.usage for result in results if result.usage is not None]
    total = None
    if len(usages) == len(results):
        total = Usage()
        for usage in usages:
            total.add(usage)
        whole["usage"] = {"prompt_tokens": total.input_tokens, "total_tokens": total.input_tokens}
    if task == "rerank":
        rerank.complete(whole, request.body, whole.get("model") or "")
    return Result(request.id or "", whole, usage=total, engine=results[0].engine)


def _texts(task: str, body: dict[str, Any]) -> list[Any]:
    """Those of a request that has a list of them; one that has none is not split."""
    texts = body.get(_LISTS[task][0]) if task in _LISTS else None
    if task == "sentence-similarity" and type(texts) is dict:
        texts = texts.get("sentences")
    return texts if type(texts) is list else []
