"""A dialect: OpenAI's wire under a path and a header of its own."""

from __future__ import annotations

from typing import Any

from engine.dialects.client import WireCall
from engine.dialects.openai.client import OpenAIDialect


class AcmeDialect(OpenAIDialect):
    """Sends `x-acme: 1` with each call."""

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        call = super().encode(task, body, model=model, stream=stream, drop_unsupported=drop_unsupported)
        call.headers["x-acme"] = "1"
        return call
