"""Task `embedding`: OpenAI embeddings (API reference, "Create embeddings")."""

from __future__ import annotations

import base64
import sys
from array import array
from dataclasses import dataclass
from typing import Any

from engine.core.errors import InvalidRequest, Malformed
from engine.core.usage import Usage
from engine.tasks import fields
from engine.tasks.local_model import Embeddings

SUPPORTED = frozenset(("input", "encoding_format"))
TASKS = frozenset(("embedding", "sentence-similarity"))
"""Tasks that a model for sentence embeddings answers."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The fields of an embedding request."""

    texts: list[str]
    base64: bool
    """True: vectors as base64 of little-endian float32; False: as lists of numbers."""


def read(body: dict[str, Any]) -> Ask:
    """Returns the texts and the form of the vectors. Raises InvalidRequest with the field's path."""
    fields.check(body, SUPPORTED)
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    for index, text in enumerate(texts):
        where = "body.input" if isinstance(given, str) else f"body.input[{index}]"
        if not isinstance(text, str):
            raise InvalidRequest(f"{where}: expected text; lists of tokens are not supported here")
        if not text:
            raise InvalidRequest(f"{where}: must not be empty")
        fields.whole_text(text, where)
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {form!r} is not a format; one of: float, base64")
    return Ask(texts, form == "base64")


def reply(ask: Ask, found: Embeddings, model: str) -> tuple[dict[str, Any], Usage]:
    """Returns the reply and its usage."""
    rows: list[Any]
    if ask.base64:
        rows = [base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") for vector in found.vectors]
    else:
        rows = found.vectors.tolist()
    tokens = sum(found.tokens)
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return body, Usage(tokens, 0)


def check_order(body: dict[str, Any], given: Any) -> None:
    """Brings a provider's vectors into the order of the inputs. Raises Malformed unless each input has its vector.

    `index` names the input of a vector; if no vector has it, the provider is assumed to keep the order.
    """
    data = body["data"]
    count = len(given) if isinstance(given, list) and not all(type(item) is int for item in given) else 1
    if len(data) != count:
        raise Malformed(f"HTTP 200: expected {count} embeddings, got {len(data)}")
    indices = [item.get("index") for item in data]
    if indices == list(range(count)):
        return
    if indices == [None] * count:
        for index, item in enumerate(data):
            item["index"] = index
        return
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(count)):
        shown = ", ".join(map(str, indices[:8])) + (", …" if count > 8 else "")
        raise Malformed(f"HTTP 200: the embeddings' index must be 0 to {count - 1}, each once; got {shown}")
    body["data"] = sorted(data, key=lambda item: item["index"])


def pack(body: dict[str, Any]) -> None:
    """Packs a provider's vectors as base64 of little-endian float32, in place, where its wire knows only numbers.
    Raises Malformed for a value that is not a number."""
    for item in body["data"]:
        vector = item["embedding"]
        if type(vector) is list:
            try:
                numbers = array("f", vector)
            except (TypeError, OverflowError) as error:
                raise Malformed(f"HTTP 200: a vector has a value that is not a number: {error}") from error
            if sys.byteorder == "big":
                numbers.byteswap()
            item["embedding"] = base64.b64encode(numbers.tobytes()).decode("ascii")
