"""Canonical messages and tools in the form that Text Generation Inference reads.

Source: the server's router (router/src/lib.rs: Message, MessageBody, MessageChunk, FunctionDefinition). It takes a
message with a content, else one with tool calls, and passes over every other field without a word.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.common.json_body import UNREADABLE
from engine.dialects.common.unsupported import Unsupported

_decode = msgspec.json.Decoder().decode
_READ = frozenset(("role", "content", "tool_calls", "name", "tool_call_id"))
"""Of a message. The server reads no `tool_call_id`: results belong to the calls in their order."""
_PARTS = ("text", "image_url")


def messages(given: Any, unsupported: Unsupported) -> Any:
    """The messages. Raises InvalidRequest."""
    if type(given) is not list:
        return given
    return [_message(message, f"body.messages[{index}]", unsupported) for index, message in enumerate(given)]


def tools(given: Any) -> Any:
    """The tools. One without parameters gets those of a function that takes none, for the server demands them."""
    if type(given) is not list:
        return given
    return [_tool(tool) for tool in given]


def _tool(tool: Any) -> Any:
    function = tool.get("function") if type(tool) is dict else None
    if type(function) is not dict or function.get("parameters") is not None:
        return tool
    return {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}}}}


def _message(message: Any, where: str, unsupported: Unsupported) -> Any:
    if type(message) is not dict:
        raise InvalidRequest(f"{where}: expected an object with role and content")
    content = message.get("content")
    if len(message) == 2 and type(content) is str and message.get("role") != "developer":
        return message
    wire: dict[str, Any] = {}
    for name, value in message.items():
        if name in _READ:
            wire[name] = value
        elif value:  # replies come back as history, with fields that are null or empty
            unsupported.lose(f"{where}.{name}")
    if wire.get("role") == "developer":
        wire["role"] = "system"
    if type(content) is list:
        wire["content"] = _parts(content, f"{where}.content", unsupported)
    if not wire.get("tool_calls"):
        wire.pop("tool_calls", None)
        if content is None:
            wire["content"] = ""
        return wire
    wire.pop("content", None)
    if content:
        unsupported.lose(f"{where}.content", "this server reads the text or the tool calls of an answer, not both")
    wire["tool_calls"] = [_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(wire["tool_calls"])]
    return wire


def _parts(content: list[Any], where: str, unsupported: Unsupported) -> list[Any]:
    found: list[Any] = []
    for index, part in enumerate(content):
        at = f"{where}[{index}]"
        kind = part.get("type") if type(part) is dict else None
        if kind not in _PARTS:
            unsupported.lose(at, f"this server reads text and image_url here, not {kind!r}")
            continue
        image = part.get("image_url")
        if type(image) is dict and image.get("detail") is not None:
            if image["detail"] != "auto":
                unsupported.lose(f"{at}.image_url.detail", "this server alone decides how closely it looks")
            part = {**part, "image_url": {name: value for name, value in image.items() if name != "detail"}}
        found.append(part)
    return found


def _call(call: Any, at: str) -> Any:
    """A call with its arguments as an object: a text would be in the prompt with its quotes escaped."""
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise InvalidRequest(f"{at}: expected a call of a function")
    arguments = function.get("arguments")
    if type(arguments) is not str:
        return call
    try:
        given = _decode(arguments or "{}")
    except UNREADABLE as error:
        raise InvalidRequest(f"{at}.function.arguments: not JSON: {error}") from error
    return {**call, "function": {**function, "arguments": given}}
