"""Refuses numbers that are not finite: NaN and infinity, which JSON writes as null."""

from __future__ import annotations

import base64
import binascii
from array import array
from math import isfinite
from typing import Any

from engine.core.errors import Malformed


class NotFinite(Malformed):
    """Raised for results that are not numbers. The model repeats them at the next try; other targets may not."""

    retryable = False
    counts_for_breaker = False


def check(body: dict[str, Any]) -> None:
    """Checks a model's own reply. Raises NotFinite."""
    _check(body, "body")


def check_vectors(body: dict[str, Any]) -> None:
    """Looks through the vectors of a provider's embeddings, where JSON says `null`. One as base64 may hold numbers of
    any type and is left alone. Raises NotFinite."""
    for item in body["data"]:
        vector = item["embedding"]
        if type(vector) is list and vector and type(vector[0]) is not list and not _finite(vector):
            raise _refused("an embedding")


def check_scores(results: list[dict[str, Any]]) -> None:
    """Checks the scores of a rerank. Raises NotFinite."""
    for result in results:
        score = result.get("relevance_score")
        if type(score) not in (int, float) or not _finite([score]):
            raise _refused("relevance_score")


def _check(value: Any, path: str) -> None:
    kind = type(value)
    if kind is float:
        if not isfinite(value):
            raise _refused(path)
    elif kind is list:
        if value and type(value[0]) is float:
            if not _finite(value):
                raise _refused(path)
            return
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif kind is dict:
        for name, item in value.items():
            if name == "embedding" and type(item) is str:
                _check_packed(item)
            else:
                _check(item, f"{path}.{name}")


def _check_packed(text: str) -> None:
    """Checks float32 numbers in base64; ignores any other text."""
    try:
        numbers = array("f", base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return
    if not isfinite(sum(numbers)):
        raise _refused("an embedding")


def _finite(numbers: list[Any]) -> bool:
    """Sums the numbers, the fastest way to find a NaN, an infinity or a null."""
    try:
        return isfinite(sum(numbers))
    except (TypeError, OverflowError):
        return False


def _refused(path: str) -> NotFinite:
    return NotFinite(
        f"{path}: got a number that is not finite (NaN, infinity or null); expected numbers. "
        "Fix: check the model's weights, or use hardware.dtype=float32"
    )
