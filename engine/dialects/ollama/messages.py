"""Messages of a chat in Ollama's words: one text and a list of images each, tool arguments as objects.

Source: Ollama's docs, "Chat", "Tool calling", "Vision", and its types (api/types.go, `Message`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_PLAIN = frozenset(("system", "user", "assistant"))
_KNOWN = frozenset(("role", "content", "tool_calls", "tool_call_id", "reasoning_content", "reasoning"))


def write_messages(messages: Any, unsupported: Unsupported) -> list[dict[str, Any]]:
    """The messages, each in its place. Raises InvalidRequest."""
    if type(messages) is not list or not messages:
        raise InvalidRequest("body.messages: expected at least one message; an empty list would only load the model")
    written: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    """Of the tools that were called, by the call's id: Ollama needs the name with the answer."""
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise InvalidRequest(f"body.messages[{index}]: expected an object")
        if len(message) == 2 and type(message.get("content")) is str and message.get("role") in _PLAIN:
            written.append(message)
            continue
        _write(message, f"body.messages[{index}]", names, written, unsupported)
    return written


def _write(
    message: dict[str, Any],
    where: str,
    names: dict[str, str],
    written: list[dict[str, Any]],
    unsupported: Unsupported,
) -> None:
    role = _ROLES.get(message.get("role") or "")
    if role is None:
        raise InvalidRequest(f"{where}.role: {message.get('role')!r} is not a role; one of: {', '.join(_ROLES)}")
    for name, value in message.items():
        if name not in _KNOWN and value and not (role == "tool" and name == "name"):
            unsupported.lose(f"{where}.{name}")
    parts = _parts(message.get("content"), role, where, unsupported)
    last = parts[-1]
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if reasoning:
        last["thinking"] = reasoning
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list | tuple):
            raise InvalidRequest(f"{where}.tool_calls: got {type(calls).__name__}; expected a list")
        last["tool_calls"] = [_call(call, f"{where}.tool_calls[{at}]", names) for at, call in enumerate(calls)]
    if role == "tool":
        call_id = message.get("tool_call_id")
        tool = (names.get(call_id) if isinstance(call_id, str) else None) or message.get("name")
        if tool:
            last["tool_name"] = tool
        if call_id:
            last["tool_call_id"] = call_id
    written.extend(parts)


def _parts(content: Any, role: str, where: str, unsupported: Unsupported) -> list[dict[str, Any]]:
    """A message for each run of text and images: within one, Ollama does not say which is before which, so a
    message in which they alternate becomes several of the same role, as Ollama's own OpenAI wire does it."""
    if content is None or type(content) is str:
        return [{"role": role, "content": content or ""}]
    if type(content) is not list:
        raise InvalidRequest(f"{where}.content: expected a text or a list of parts")
    messages: list[dict[str, Any]] = []
    kinds: list[str] = []
    """The kinds of part in the message at hand, in their order."""
    for index, part in enumerate(content):
        at = f"{where}.content[{index}]"
        kind, value = _part(part, at, unsupported)
        if not messages or (kind not in kinds[-1:] and len(kinds) == 2):
            messages.append({"role": role, "content": ""})
            kinds = []
        if kind not in kinds:
            kinds.append(kind)
            if kind == "images":
                messages[-1]["images"] = []
        if kind == "text":
            text = messages[-1]["content"]
            messages[-1]["content"] = f"{text}\n{value}" if text else value
        else:
            messages[-1]["images"].append(value)
    return messages or [{"role": role, "content": ""}]


def _part(part: Any, at: str, unsupported: Unsupported) -> tuple[str, str]:
    kind = part.get("type") if type(part) is dict else None
    if kind == "text" and type(part.get("text")) is str:
        return "text", part["text"]
    if kind == "image_url":
        return "images", _image(part.get("image_url"), at, unsupported)
    if kind == "input_audio":
        audio = part.get("input_audio")
        if type(audio) is not dict or type(audio.get("data")) is not str:
            raise InvalidRequest(f"{at}.input_audio.data: expected base64")
        if audio.get("format", "wav") != "wav":
            raise InvalidRequest(f"{at}.input_audio.format: Ollama hears wav only; convert it")
        return "images", audio["data"]  # one list for both: the model's projector tells them apart by their first bytes
    raise InvalidRequest(f"{at}.type: {kind!r} can't be sent to Ollama; one of: text, image_url, input_audio")


def _image(image: Any, at: str, unsupported: Unsupported) -> str:
    url = image.get("url") if type(image) is dict else image
    if type(url) is not str:
        raise InvalidRequest(f"{at}.image_url.url: expected a data: URL")
    if type(image) is dict and image.get("detail") not in (None, "auto"):
        unsupported.lose(f"{at}.image_url.detail", "the model alone decides how closely Ollama looks")
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(
            f"{at}.image_url.url: Ollama fetches no address; send the image itself, as data:image/png;base64,…"
        )
    return data


def _call(call: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict or type(function.get("name")) is not str:
        raise InvalidRequest(f"{where}.function.name: expected the name of the tool")
    arguments = function.get("arguments") or "{}"
    if type(arguments) is str:
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            arguments = None
    if type(arguments) is not dict:
        raise InvalidRequest(f"{where}.function.arguments: expected a JSON object; Ollama takes no other arguments")
    written: dict[str, Any] = {"function": {"name": function["name"], "arguments": arguments}}
    call_id = call.get("id")
    if type(call_id) is str and call_id:
        written["id"] = call_id
        names[call_id] = function["name"]
    return written
