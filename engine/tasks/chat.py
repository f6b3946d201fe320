"""Task `chat`: OpenAI chat completions (API reference, "Create chat completion")."""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.media.reader import MediaReader
from engine.tasks import fields
from engine.tasks.local_model import Sampling
from engine.tasks.usage import openai_usage

SUPPORTED = fields.SAMPLING_FIELDS | {"messages"}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read(body: dict[str, Any], pictures: bool = False) -> tuple[list[dict[str, Any]], Sampling]:
    """Returns the messages, with plain text, and the sampling. Raises InvalidRequest with the field's path.

    With `pictures` a message that has any keeps its content as a list: `text` parts, and `image` parts with `image`, as
    the request names it, and `where` is its path.
    """
    fields.check(body, SUPPORTED)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("body.messages: expected a list with at least one message")
    read = [_message(message, f"body.messages[{i}]", pictures) for i, message in enumerate(messages)]
    return read, fields.sampling(body)


async def open_pictures(messages: list[dict[str, Any]], reader: MediaReader) -> list[dict[str, Any]]:
    """Returns the messages of `read`, their images as Media. Raises InvalidRequest with the place."""
    opened = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [
                {**part, "image": await reader.read(part["image"], part["where"])} if part["type"] == "image" else part
                for part in content
            ]
        opened.append({**message, "content": content})
    return opened


def _message(message: Any, where: str, pictures: bool) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where}: expected an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}.role: {role!r} is not supported here; one of: {', '.join(_ROLES)}")
    for name, value in message.items():
        if name not in ("role", "content", "name") and value:
            raise InvalidRequest(f"{where}.{name}: not supported by a model in this process; supported: role, content")
    content = message.get("content")
    if pictures and isinstance(content, list) and any(map(_is_picture, content)):
        parts = [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
        return {"role": _ROLES[role], "content": parts}
    return {"role": _ROLES[role], "content": fields.text_of(content, f"{where}.content")}


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _part(part: Any, where: str) -> dict[str, Any]:
    if not _is_picture(part):
        return {"type": "text", "text": fields.text_of([part], where)}
    given = part.get("image_url")
    return {
        "type": "image",
        "image": given.get("url") if isinstance(given, dict) and "url" in given else given,
        "where": f"{where}.image_url",
    }


class Answer:
    """Builds the replies of one request; `created` is in Unix seconds."""

    def __init__(self, request_id: str, model: str, created: int) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created, "model": model}

    def reply(self, text: str, finish_reason: str | None, usage: Usage) -> dict[str, Any]:
        """Returns the whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": openai_usage(usage)}

    def opening(self) -> dict[str, Any] | None:
        """Returns the chunk with the role."""
        return self._chunk({"role": "assistant", "content": ""})

    def part(self, text: str) -> dict[str, Any]:
        """Returns a chunk of text."""
        return self._chunk({"content": text})

    def closing(self, finish_reason: str) -> dict[str, Any]:
        """Returns the chunk with the finish reason."""
        return self._chunk({}, finish_reason)

    def totals(self, usage: Usage) -> dict[str, Any]:
        """Returns the chunk for `stream_options.include_usage`."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": openai_usage(usage)}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
