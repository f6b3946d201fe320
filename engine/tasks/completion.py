"""Task `completion`: OpenAI completions (API reference, "Create completion")."""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.tasks import fields
from engine.tasks.local_model import Sampling
from engine.tasks.usage import openai_usage

SUPPORTED = fields.SAMPLING_FIELDS | {"prompt"}


def read(body: dict[str, Any]) -> tuple[str, Sampling]:
    """Returns the prompt and the sampling. Raises InvalidRequest with the field's path."""
    fields.check(body, SUPPORTED)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequest("body.prompt: expected one text; several prompts are several requests")
    if not prompt:
        raise InvalidRequest("body.prompt: must not be empty")
    fields.whole_text(prompt, "body.prompt")
    return prompt, fields.sampling(body)


class Answer:
    """Builds the replies of one request; `created` is in Unix seconds."""

    def __init__(self, request_id: str, model: str, created: int) -> None:
        self._head = {"id": f"cmpl-{request_id}", "object": "text_completion", "created": created, "model": model}

    def reply(self, text: str, finish_reason: str | None, usage: Usage) -> dict[str, Any]:
        """Returns the whole answer."""
        return {**self._chunk(text, finish_reason), "usage": openai_usage(usage)}

    def opening(self) -> dict[str, Any] | None:
        """Returns None: a completion begins with its text."""
        return None

    def part(self, text: str) -> dict[str, Any]:
        """Returns a chunk of text."""
        return self._chunk(text)

    def closing(self, finish_reason: str) -> dict[str, Any]:
        """Returns the chunk with the finish reason."""
        return self._chunk("", finish_reason)

    def totals(self, usage: Usage) -> dict[str, Any]:
        """Returns the chunk for `stream_options.include_usage`."""
        return {**self._head, "choices": [], "usage": openai_usage(usage)}

    def _chunk(self, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice]}
