"""Task `embedding`: OpenAI embeddings (API reference, "Create embeddings")."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidRequest
from engine.request import Usage
from engine.runtimes import Embeddings
from engine.tasks import fields

SUPPORTED = frozenset(("input", "encoding_format"))


@dataclass(frozen=True, slots=True)
class Ask:
    """What an embedding request asks for."""

    texts: list[str]
    base64: bool
    """Vectors as base64 of little-endian float32, else as lists of numbers."""


def read(body: dict[str, Any]) -> Ask:
    """The texts and the form of the vectors. Raises InvalidRequest with the field's path."""
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
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {form!r} is not a format; one of: float, base64")
    return Ask(texts, form == "base64")


def reply(ask: Ask, found: Embeddings, model: str) -> tuple[dict[str, Any], Usage]:
    """The reply and its usage."""
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
