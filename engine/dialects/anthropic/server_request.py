"""A client's Messages API request → the canonical chat body.

What changes the meaning of a request and has no canonical form is refused; what is a hint, such as a caching mark, is
left out with a warning. Paths are those of the client's own body. Source: as in `engine.dialects.anthropic.request`.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest

_encode = msgspec.json.Encoder().encode

_SAME = ("max_tokens", "temperature", "top_p", "top_k")
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_HINTS = ("cache_control", "container", "context_management", "diagnostics", "inference_geo", "speed")
"""Fields that change the serving of an answer, not the request."""
_KNOWN = frozenset(
    {"messages", "metadata", "model", "output_config", "service_tier", "stop_sequences", "stream", "system", "thinking"}
    | {"tool_choice", "tools", *_SAME, *_HINTS}
)
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict"})


def canonical_chat(wire: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """The canonical body. Raises InvalidRequest."""
    for name in wire.keys() - _KNOWN:
        raise InvalidRequest(f"{name}: this server can't do what it requests; leave it out")
    body: dict[str, Any] = {"model": wire.get("model"), "messages": _messages(wire, warnings)}
    if type(body["model"]) is not str:
        raise InvalidRequest("model: expected the name of a model")
    if type(wire.get("max_tokens")) is not int or wire["max_tokens"] < 1:
        raise InvalidRequest("max_tokens: expected the longest answer in tokens, at least 1")
    for name in _SAME:
        if wire.get(name) is not None:
            body[name] = wire[name]
    for name in _HINTS:
        if wire.get(name) is not None:
            warnings.append(f"{name} was left out: it is a hint that only Claude's own servers take")
    if wire.get("stop_sequences"):
        body["stop"] = wire["stop_sequences"]
    user = (wire.get("metadata") or {}).get("user_id")
    if user is not None:
        body["user"] = user
    if wire.get("service_tier") in _TIERS:
        body["service_tier"] = _TIERS[wire["service_tier"]]
    _read_output(wire, body)
    _read_tools(wire, body, warnings)
    return body


def _read_output(wire: dict[str, Any], body: dict[str, Any]) -> None:
    """`output_config` and `thinking`."""
    config, thinking = wire.get("output_config") or {}, wire.get("thinking")
    if config.get("effort") is not None:
        body["reasoning_effort"] = config["effort"]
    form = config.get("format")
    if form is not None:
        schema = {"name": "output", "schema": form.get("schema"), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if thinking == {"type": "disabled"} and "reasoning_effort" not in body:
        body["reasoning_effort"] = "none"
    elif thinking is not None and not (thinking == {"type": "adaptive"} and "reasoning_effort" in body):
        # Budgets and the like have no canonical form; other wires that think know this field by the same name.
        body["thinking"] = thinking


def _read_tools(wire: dict[str, Any], body: dict[str, Any], warnings: list[str]) -> None:
    tools: list[dict[str, Any]] = []
    for index, tool in enumerate(wire.get("tools") or ()):
        where = f"tools.{index}"
        if type(tool) is not dict or tool.get("type") not in (None, "custom") or type(tool.get("name")) is not str:
            kind = tool.get("type") if type(tool) is dict else tool
            raise InvalidRequest(f"{where}: this server takes tools with a name and an input_schema, not {kind!r}")
        function = {"name": tool["name"]}
        if tool.get("description") is not None:
            function["description"] = tool["description"]
        function["parameters"] = tool.get("input_schema")
        if tool.get("strict") is not None:
            function["strict"] = tool["strict"]
        for name in tool.keys() - _TOOL:
            warnings.append(f"{where}.{name} was left out: it is a hint that only Claude's own servers take")
        tools.append({"type": "function", "function": function})
    if tools:
        body["tools"] = tools
    choice = wire.get("tool_choice")
    if choice is None:
        return
    kind = choice.get("type") if type(choice) is dict else None
    if kind == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in _CHOICES:
        body["tool_choice"] = _CHOICES[kind]
    else:
        raise InvalidRequest(f"tool_choice.type: expected auto, any, tool or none, got {kind!r}")
    if choice.get("disable_parallel_tool_use"):
        body["parallel_tool_calls"] = False


def _messages(wire: dict[str, Any], warnings: list[str]) -> list[dict[str, Any]]:
    said = wire.get("messages")
    if type(said) is not list or not said:
        raise InvalidRequest("messages: expected a list with at least one message")
    messages: list[dict[str, Any]] = []
    if wire.get("system"):
        messages.append({"role": "system", "content": _text_only(wire["system"], "system", warnings)})
    for index, message in enumerate(said):
        where = f"messages.{index}"
        role = message.get("role") if type(message) is dict else None
        content = message.get("content") if type(message) is dict else None
        if role == "user":
            _add_user(messages, content, where, warnings)
        elif role == "assistant":
            messages.append(_assistant(content, where, warnings))
        elif role == "system":
            messages.append({"role": "system", "content": _text_only(content, f"{where}.content", warnings)})
        else:
            raise InvalidRequest(f"{where}.role: expected user, assistant or system, got {role!r}")
    return messages


def _blocks(content: Any, where: str, warnings: list[str]) -> list[tuple[str, dict[str, Any], str]]:
    """Content blocks with their paths and types."""
    if type(content) is not list:
        raise InvalidRequest(f"{where}: expected a text or a list of blocks, got {type(content).__name__}")
    blocks: list[tuple[str, dict[str, Any], str]] = []
    for index, block in enumerate(content):
        kind = block.get("type") if type(block) is dict else None
        if type(kind) is not str:
            raise InvalidRequest(f"{where}.{index}: expected a block with a type")
        if block.get("cache_control") is not None:
            hint = "cache_control of content was left out: it is a hint that only Claude's own servers take"
            if hint not in warnings:
                warnings.append(hint)
        blocks.append((f"{where}.{index}", block, kind))
    return blocks


def _text(block: dict[str, Any], at: str) -> dict[str, Any]:
    if type(block.get("text")) is not str:
        raise InvalidRequest(f"{at}.text: expected a text")
    return {"type": "text", "text": block["text"]}


def _text_only(content: Any, where: str, warnings: list[str]) -> Any:
    if isinstance(content, str):
        return content
    parts = []
    for at, block, kind in _blocks(content, where, warnings):
        if kind != "text":
            raise InvalidRequest(f"{at}.type: expected text here, not {kind!r}")
        parts.append(_text(block, at))
    return parts


def _add_user(messages: list[dict[str, Any]], content: Any, where: str, warnings: list[str]) -> None:
    """A turn of the user, whose tool results are messages of their own."""
    if isinstance(content, str):
        messages.append({"role": "user", "content": content})
        return
    parts: list[dict[str, Any]] = []
    for at, block, kind in _blocks(content, f"{where}.content", warnings):
        if kind != "tool_result":
            parts.append(_part(block, at, kind))
            continue
        if parts:
            messages.append({"role": "user", "content": parts})
            parts = []
        messages.append(_result(block, at, warnings))
    if parts:
        messages.append({"role": "user", "content": parts})


def _result(block: dict[str, Any], at: str, warnings: list[str]) -> dict[str, Any]:
    if block.get("is_error"):
        warnings.append(f"{at}.is_error was left out: a canonical result says in its words that it failed")
    content = block.get("content")
    if content is None:
        content = ""
    elif not isinstance(content, str):
        content = [_part(each, where, kind) for where, each, kind in _blocks(content, f"{at}.content", warnings)]
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _part(block: dict[str, Any], at: str, kind: str) -> dict[str, Any]:
    """A canonical content part."""
    if kind == "text":
        return _text(block, at)
    source = block.get("source")
    if kind in ("image", "document") and type(source) is dict:
        how, media, data = source.get("type"), source.get("media_type"), source.get("data")
        if kind == "image" and how == "url":
            return {"type": "image_url", "image_url": {"url": source.get("url")}}
        if kind == "image" and how == "base64":
            return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}
        if kind == "document" and how == "text" and isinstance(data, str):
            return _file(block, "text/plain", base64.b64encode(data.encode()).decode())
        if kind == "document" and how == "base64":
            return _file(block, media, data)
        raise InvalidRequest(f"{at}.source.type: this server can't reach {how!r}; send base64")
    raise InvalidRequest(f"{at}.type: this server takes text, image, document and tool_result, not {kind!r}")


def _file(block: dict[str, Any], media: Any, data: Any) -> dict[str, Any]:
    file = {"file_data": f"data:{media};base64,{data}"}
    if block.get("title"):
        file["filename"] = block["title"]
    return {"type": "file", "file": file}


def _assistant(content: Any, where: str, warnings: list[str]) -> dict[str, Any]:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts: list[dict[str, Any]] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for at, block, kind in _blocks(content, f"{where}.content", warnings):
        if kind == "text":
            texts.append(_text(block, at))
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": _encode(block.get("input") or {}).decode()}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "redacted_thinking" or (kind == "thinking" and block.get("signature")):
            thoughts.append(block)
        elif kind == "thinking":
            warnings.append(f"{at} was left out: a thought without a signature can't be given back")
        else:
            raise InvalidRequest(f"{at}.type: this server takes text, thinking and tool_use here, not {kind!r}")
    message: dict[str, Any] = {"role": "assistant", "content": texts}
    if calls or thoughts:
        # The usual form of an answer that is more than text: one text or none.
        message["content"] = texts[0]["text"] if len(texts) == 1 else texts or None
    if thoughts:
        message["thinking_blocks"] = thoughts
    if calls:
        message["tool_calls"] = calls
    return message
