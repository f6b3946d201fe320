"""The base of Hugging Face's inference servers, TGI and TEI: one router, its errors, and an OpenAI path."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from engine.core.request import RateHints
from engine.dialects.common.base import HttpDialect
from engine.dialects.openai.client import OpenAIDialect
from engine.dialects.tgi.errors import typed_error


class HuggingFaceDialect(HttpDialect):
    """A server with `/info`, and with an OpenAI path for a part of its tasks."""

    list_path = "/info"
    typed_error = typed_error

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        super().__init__(wall)
        self._openai = OpenAIDialect(wall)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        """Returns the limits that a proxy in front of the server sends; the server itself sends none."""
        return self._openai.rate_hints(headers)
