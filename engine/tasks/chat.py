"""Task `chat`: OpenAI chat completions (API reference, "Create chat completion")."""

from __future__ import annotations

from typing import Any

from engine.errors import InvalidRequest
from engine.request import Usage
from engine.runtimes import Sampling
from engine.tasks import fields
from engine.tasks.usage import openai_usage

SUPPORTED = fields.SAMPLING_FIELDS | {"messages"}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read(body: dict[str, Any]) -> tuple[list[dict[str, Any]], Sampling]:
    """The messages, with plain text, and the sampling. Raises InvalidRequest with the field's path."""
    fields.check(body, SUPPORTED)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("body.messages: expected a list with at least one message")
    return [_message(message, f"body.messages[{i}]") for i, message in enumerate(messages)], fields.sampling(body)


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where}: expected an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}.role: {role!r} is not supported here; one of: {', '.join(_ROLES)}")
    for name, value in message.items():
        if name not in ("role", "content", "name") and value:
            raise InvalidRequest(f"{where}.{name}: not supported by a model in this process; supported: role, content")
    return {"role": _ROLES[role], "content": fields.text_of(message.get("content"), f"{where}.content")}


class Answer:
    """Builds the replies of one request; `created` is in Unix seconds."""

    def __init__(self, request_id: str, model: str, created: int) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created, "model": model}

    def reply(self, text: str, finish_reason: str | None, usage: Usage) -> dict[str, Any]:
        """The whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": openai_usage(usage)}

    def opening(self) -> dict[str, Any] | None:
        """The chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def part(self, text: str) -> dict[str, Any]:
        """A chunk of text."""
        return self._chunk({"content": text})

    def closing(self, finish_reason: str) -> dict[str, Any]:
        """The chunk that says why the answer ended."""
        return self._chunk({}, finish_reason)

    def totals(self, usage: Usage) -> dict[str, Any]:
        """The chunk that `stream_options.include_usage` asks for."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": openai_usage(usage)}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
