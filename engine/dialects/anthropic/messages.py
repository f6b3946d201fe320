"""Canonical messages → `system` and `messages` of Anthropic's wire.

Sources: Anthropic's API reference, "Create a Message" (messages, system), and its guides "Mid-conversation system
messages", "Vision", "PDF support", "Handle tool calls" and "Thinking".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest

_decode = msgspec.json.Decoder().decode

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_SYSTEM = ("system", "developer")
_KEYS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    # A call's id names its function already.
    "tool": {"role", "content", "tool_call_id", "name", "cache_control"},
    "assistant": {"role", "content", "refusal", "tool_calls", "thinking_blocks", "reasoning_content", "reasoning"},
}


class Unsupported:
    """Parts of a body that the wire can't express: refused, or dropped with a warning."""

    __slots__ = ("drop", "warnings")

    def __init__(self, drop: bool) -> None:
        self.drop = drop
        self.warnings: list[str] = []

    def add(self, path: str, why: str, step: str | None = None) -> None:
        """Notes a loss. Raises InvalidRequest unless unsupported are to be dropped."""
        if not self.drop:
            step = step or "leave it out"
            raise InvalidRequest(f"{path}: {why}; {step}, or set provider.drop_unsupported=true to drop it")
        self.warnings.append(f"{path} was dropped: {why}")


def wire_messages(messages: Any, wire: dict[str, Any], unsupported: Unsupported) -> None:
    """Puts `system` and `messages` into `wire`. Raises InvalidRequest."""
    if type(messages) is not list or not messages:
        raise InvalidRequest("body.messages: expected a list with at least one message")
    said: list[dict[str, Any]] = []
    leading: list[Any] = []
    for index, message in enumerate(messages):
        role = message.get("role") if type(message) is dict else None
        keys = _KEYS.get(role)  # type: ignore[arg-type]
        if keys is None:
            raise InvalidRequest(
                f"body.messages.{index}.role: {role!r} is not a role; one of: {', '.join(_KEYS)} (a result of the old "
                "`function` role is a `tool` message)"
            )
        where = f"body.messages.{index}"
        if len(message) > 2:
            _check_keys(message, keys, where, unsupported)
        if role in _SYSTEM:
            content = _texts(message.get("content"), where, unsupported)
            if said:
                _place(said, content, messages, index, leading, unsupported)
            else:
                leading.append(content)
        elif role == "user":
            said.append({"role": "user", "content": _user_content(message.get("content"), where, unsupported)})
        elif role == "assistant":
            said.append({"role": "assistant", "content": _assistant_content(message, where, unsupported)})
        else:
            _add_result(said, message, where, unsupported)
    if not said:
        raise InvalidRequest("body.messages: the Messages API needs a message of the user in addition to the system's")
    if leading:
        wire["system"] = leading[0] if len(leading) == 1 else [each for content in leading for each in _blocks(content)]
    wire["messages"] = said


def _place(
    said: list[dict[str, Any]],
    content: Any,
    messages: list[Any],
    index: int,
    leading: list[Any],
    unsupported: Unsupported,
) -> None:
    """A system message within the conversation. The wire takes it after a turn of the user, as the last one or before
    an answer; elsewhere it would have to change its place."""
    following = next((each.get("role") for each in messages[index + 1 :] if each.get("role") not in _SYSTEM), None)
    if said[-1]["role"] == "assistant" or following not in (None, "assistant"):
        where = f"body.messages.{index}"
        if not unsupported.drop:
            raise InvalidRequest(
                f"{where}: the Messages API takes a system message only at the start, or after a user or tool message "
                "and before the answer to it; move it there, or set provider.drop_unsupported=true to move it to the "
                "start"
            )
        unsupported.warnings.append(f"{where}: the system message was moved to the start, for its place can't be kept")
        leading.append(content)
    elif said[-1]["role"] == "system":
        said[-1]["content"] = [*_blocks(said[-1]["content"]), *_blocks(content)]
    else:
        said.append({"role": "system", "content": content})


def _check_keys(message: dict[str, Any], keys: set[str], where: str, unsupported: Unsupported) -> None:
    for key, value in message.items():
        # Replies come back as history, with fields that are null or empty.
        if key not in keys and value:
            unsupported.add(f"{where}.{key}", "the Messages API has no place for it")


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(content: Any, where: str, unsupported: Unsupported) -> Any:
    """Content that can only be text."""
    if isinstance(content, str):
        return content
    parts: list[dict[str, Any]] = []
    for at, part in _parts(content, where):
        if part.get("type") == "text":
            parts.append(_text(part))
        else:
            unsupported.add(at, f"expected text here, not {part.get('type')!r}")
    return parts


def _user_content(content: Any, where: str, unsupported: Unsupported) -> Any:
    if isinstance(content, str):
        return content
    blocks: list[dict[str, Any]] = []
    for at, part in _parts(content, where):
        block = _block(part, at, unsupported)
        if block is not None:
            blocks.append(block)
    return blocks


def _text(part: dict[str, Any]) -> dict[str, Any]:
    return _marked({"type": "text", "text": part.get("text")}, part)


def _marked(block: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The block with the caching mark that the part carries."""
    if "cache_control" in part:
        block["cache_control"] = part["cache_control"]
    return block


def _parts(content: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Content parts with their paths."""
    if type(content) is not list or not all(type(part) is dict for part in content):
        raise InvalidRequest(f"{where}.content: expected a text or a list of parts, got {type(content).__name__}")
    return [(f"{where}.content.{index}", part) for index, part in enumerate(content)]


def _block(part: dict[str, Any], at: str, unsupported: Unsupported) -> dict[str, Any] | None:
    """A content block; None: it was dropped."""
    kind = part.get("type")
    if kind == "text":
        return _text(part)
    if kind == "image_url":
        block = _image(part.get("image_url"), f"{at}.image_url", unsupported)
    elif kind == "file":
        block = _document(part.get("file"), f"{at}.file", unsupported)
    else:
        unsupported.add(at, f"the Messages API takes text, image_url and file here, not {kind!r}")
        return None
    return _marked(block, part) if block is not None else None


def _image(image: Any, at: str, unsupported: Unsupported) -> dict[str, Any] | None:
    url = image.get("url") if type(image) is dict else image
    if not isinstance(url, str):
        raise InvalidRequest(f"{at}.url: expected an address or data:image/…;base64,…")
    if type(image) is dict and image.get("detail") not in (None, "auto"):
        unsupported.add(f"{at}.detail", "the Messages API has no such choice; it scales images itself")
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, data = _data_url(url, f"{at}.url")
    if kind == "image/jpg":
        kind = "image/jpeg"
    if kind not in IMAGE_TYPES:
        unsupported.add(f"{at}.url", f"the Messages API takes {', '.join(IMAGE_TYPES)}, not {kind!r}")
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _document(file: Any, at: str, unsupported: Unsupported) -> dict[str, Any] | None:
    file = file if type(file) is dict else {}
    content = file.get("file_data")
    if not isinstance(content, str):
        unsupported.add(
            at, "a file of another provider can't be reached", "send it as file_data: data:application/pdf;…"
        )
        return None
    kind, data = _data_url(content, f"{at}.file_data")
    source: dict[str, Any]
    if kind == "application/pdf":
        source = {"type": "base64", "media_type": kind, "data": data}
    elif kind == "text/plain":
        try:
            text = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{at}.file_data: not a text in base64: {error}") from error
        source = {"type": "text", "media_type": kind, "data": text}
    else:
        unsupported.add(f"{at}.file_data", f"the Messages API takes application/pdf and text/plain, not {kind!r}")
        return None
    document = {"type": "document", "source": source}
    return {**document, "title": file["filename"]} if file.get("filename") else document


def _data_url(url: str, at: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    kind, base64_mark, rest = head.removeprefix("data:").partition(";base64")
    if not url.startswith("data:") or not comma or not base64_mark or rest:
        raise InvalidRequest(f"{at}: expected data:TYPE;base64,DATA")
    return kind.partition(";")[0].lower(), data


def _add_result(said: list[dict[str, Any]], message: dict[str, Any], where: str, unsupported: Unsupported) -> None:
    """A tool's result. The results of one turn's calls have to be in one message."""
    call = message.get("tool_call_id")
    if not isinstance(call, str):
        raise InvalidRequest(f"{where}.tool_call_id: expected the id of the call that this is the result of")
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call}
    content = _user_content(message.get("content"), where, unsupported)
    if content:
        block["content"] = content
    _marked(block, message)
    last = said[-1]["content"] if said else None
    if type(last) is list and last and last[-1]["type"] == "tool_result":
        last.append(block)
    else:
        said.append({"role": "user", "content": [block]})


def _assistant_content(message: dict[str, Any], where: str, unsupported: Unsupported) -> Any:
    content, calls, thoughts = message.get("content"), message.get("tool_calls"), message.get("thinking_blocks")
    if not calls and not thoughts and isinstance(content, str) and len(message) == 2:
        return content
    blocks: list[dict[str, Any]] = []
    if thoughts:
        blocks.extend(thoughts)
    elif message.get("reasoning_content") or message.get("reasoning"):
        name = "reasoning_content" if message.get("reasoning_content") else "reasoning"
        unsupported.add(
            f"{where}.{name}",
            "the Messages API takes only thoughts that it signed",
            "send the thinking_blocks of the reply",
        )
    if isinstance(content, str):
        if not calls and not blocks:
            return content
        if content:
            blocks.append({"type": "text", "text": content})
    elif content is not None:
        blocks.extend(_answer_parts(content, where, unsupported))
    if message.get("refusal"):
        blocks.append({"type": "text", "text": message["refusal"]})
    for index, call in enumerate(calls or ()):
        blocks.append(_call(call, f"{where}.tool_calls.{index}"))
    return blocks


def _answer_parts(content: Any, where: str, unsupported: Unsupported) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for at, part in _parts(content, where):
        kind = part.get("type")
        if kind == "refusal":
            blocks.append({"type": "text", "text": part.get("refusal")})
        elif kind == "text":
            blocks.append(_text(part))
        else:
            unsupported.add(at, f"only text can be in an answer, not {kind!r}")
    return blocks


def _call(call: Any, at: str) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise InvalidRequest(f"{at}: the Messages API takes calls of functions only")
    arguments = function.get("arguments") or "{}"
    try:
        given = _decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError) as error:
        raise InvalidRequest(
            f"{at}.function.arguments: not JSON ({error}); the Messages API takes an object"
        ) from error
    if type(given) is not dict:
        raise InvalidRequest(f"{at}.function.arguments: the Messages API takes an object, got {arguments[:40]!r}")
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}
