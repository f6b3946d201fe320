"""Reads error bodies and request ids of replies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_EXCERPT_CHARS = 160


_REQUEST_IDS = ("x-request-id", "request-id", "x-groq-request-id", "apim-request-id", "cf-ray")


def is_error(body: Any) -> bool:
    """Returns True if a decoded body is an error object, in any of the envelopes in use."""
    if type(body) is list and len(body) == 1:
        body = body[0]
    return type(body) is dict and bool(body.get("error") or body.get("object") == "error")


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's own id of a call."""
    for name in _REQUEST_IDS:
        value = headers.get(name)
        if value:
            return value
    return None


def excerpt(content: bytes) -> str:
    """The start of a body on one line; of a page, its title."""
    text = content[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    if title:
        text = f"an HTML page: {title[1]}"
    text = _one_line(text)
    return text[:_EXCERPT_CHARS] + "…" if len(text) > _EXCERPT_CHARS else text or "an empty body"


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)
