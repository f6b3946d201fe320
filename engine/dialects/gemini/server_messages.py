"""A client's `systemInstruction` and `contents` → canonical messages.

Paths are those of the client's own body. Both spellings of a field are read, `inlineData` and `inline_data`, as
Google's server does (protobuf's JSON mapping). Source: as in `engine.dialects.gemini.messages`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.gemini.messages import RESOLUTIONS, UNSIGNED
from engine.dialects.gemini.reply import signed

_encode = msgspec.json.Encoder().encode
_DETAILS = {wire: detail for detail, wire in RESOLUTIONS.items()}
_PART = frozenset(
    {
        "text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse",
        "mediaResolution",
    }
)  # fmt: skip


def named(source: Any, where: str) -> dict[str, Any]:
    """An object with the names of its fields in camel case; fields that are null are left out."""
    if type(source) is not dict:
        raise InvalidRequest(f"{where}: expected an object, got {type(source).__name__}")
    return {_camel(name): value for name, value in source.items() if value is not None}


@lru_cache(maxsize=1024)
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest) if head else name


def canonical_messages(wire: dict[str, Any], warnings: list[str]) -> list[dict[str, Any]]:
    """The messages. Raises InvalidRequest."""
    messages: list[dict[str, Any]] = []
    if wire.get("systemInstruction") is not None:
        for index, part in enumerate(_parts_of(wire["systemInstruction"], "systemInstruction")):
            if type(part.get("text")) is not str:
                raise InvalidRequest(f"systemInstruction.parts.{index}.text: expected a text")
            messages.append({"role": "system", "content": part["text"]})
    contents = wire.get("contents")
    contents = [contents] if type(contents) is dict else contents
    if type(contents) is not list or not contents:
        raise InvalidRequest("contents: expected a list with at least one content")
    open_calls: dict[str, list[str]] = {}
    """Ids of the calls that have no result yet, by function."""
    for index, content in enumerate(contents):
        where = f"contents.{index}"
        content = named(content, where)
        parts = _parts_of(content, where)
        role = content.get("role")
        if role == "model":
            messages.append(_answer(parts, where, open_calls))
        elif role in (None, "", "user", "function"):
            _add_turn(messages, parts, where, open_calls, warnings)
        else:
            raise InvalidRequest(f"{where}.role: expected user or model, got {role!r}")
    return messages


def _parts_of(content: Any, where: str) -> list[dict[str, Any]]:
    if type(content) is str:
        return [{"text": content}]
    parts = named(content, where).get("parts")
    parts = [parts] if type(parts) is dict else parts
    if type(parts) is not list:
        raise InvalidRequest(f"{where}.parts: expected a list of parts")
    read = [named(part, f"{where}.parts.{index}") for index, part in enumerate(parts)]
    for index, part in enumerate(read):
        for name in part.keys() - _PART:
            raise InvalidRequest(f"{where}.parts.{index}.{name}: this server can't read such a part")
    return read


def _add_turn(
    messages: list[dict[str, Any]],
    parts: list[dict[str, Any]],
    where: str,
    open_calls: dict[str, list[str]],
    warnings: list[str],
) -> None:
    """A turn of the user: the results of tools, then what the user says."""
    said: list[dict[str, Any]] = []
    for index, part in enumerate(parts):
        at = f"{where}.parts.{index}"
        if "functionResponse" in part:
            messages.append(_result(named(part["functionResponse"], at), f"{at}.functionResponse", open_calls))
        else:
            said.append(_part(part, at))
    if said or not parts:
        texts = len(said) == 1 and said[0]["type"] == "text"
        messages.append({"role": "user", "content": said[0]["text"] if texts else said})


def _part(part: dict[str, Any], at: str) -> dict[str, Any]:
    if "text" in part:
        return {"type": "text", "text": _string(part["text"], f"{at}.text")}
    level = part.get("mediaResolution")
    detail = _DETAILS.get(str(level.get("level"))) if type(level) is dict else None
    if "inlineData" in part:
        blob = named(part["inlineData"], f"{at}.inlineData")
        kind = _string(blob.get("mimeType"), f"{at}.inlineData.mimeType")
        data = _string(blob.get("data"), f"{at}.inlineData.data").translate(_STANDARD)
        if kind.startswith("audio/"):
            form = {"audio/mpeg": "mp3", "audio/x-wav": "wav"}.get(kind, kind[6:])
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        return _at_address(kind, f"data:{kind};base64,{data}", detail, "file_data")
    if "fileData" in part:
        file = named(part["fileData"], f"{at}.fileData")
        url = _string(file.get("fileUri"), f"{at}.fileData.fileUri")
        return _at_address(file.get("mimeType") or "image/", url, detail, "file_id")
    raise InvalidRequest(f"{at}: expected text, inlineData, fileData or functionResponse")


_STANDARD = str.maketrans("-_", "+/")
"""Base64 for addresses → the usual one: the wire takes both, a canonical body only the latter."""


def _at_address(kind: str, url: str, detail: str | None, field: str) -> dict[str, Any]:
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url, "detail": detail} if detail else {"url": url}}
    if kind.startswith("video/"):
        return {"type": "video_url", "video_url": {"url": url}}
    return {"type": "file", "file": {field: url}}


def _result(said: dict[str, Any], at: str, open_calls: dict[str, list[str]]) -> dict[str, Any]:
    name = _string(said.get("name"), f"{at}.name")
    waiting = open_calls.get(name) or []
    call = said.get("id")
    if call is None:
        if not waiting:
            raise InvalidRequest(f"{at}: no call of {name} is before it that has no result yet")
        call = waiting[0]
    if call in waiting:
        waiting.remove(call)
    response = said.get("response", {})
    if type(response) is not dict:
        raise InvalidRequest(f"{at}.response: expected an object, got {type(response).__name__}")
    wrapped = response.keys() == {"output"} and type(response["output"]) is str
    content: Any = response["output"] if wrapped else _encode(response).decode()
    if said.get("parts"):
        media = [_part(named(part, at), f"{at}.parts.{index}") for index, part in enumerate(said["parts"])]
        content = [*([{"type": "text", "text": content}] if content else []), *media]
    return {"role": "tool", "tool_call_id": call, "content": content}


def _answer(parts: list[dict[str, Any]], where: str, open_calls: dict[str, list[str]]) -> dict[str, Any]:
    texts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    extra: dict[str, Any] | None = None
    open_calls.clear()
    for index, part in enumerate(parts):
        at = f"{where}.parts.{index}"
        if "functionCall" in part:
            calls.append(_call(part, at, f"call_{where.rpartition('.')[2]}_{index}", open_calls))
            continue
        text = _string(part.get("text"), f"{at}.text")
        signature = part.get("thoughtSignature")
        if signature is not None and not part.get("thought"):
            extra = signed(signature)
        if part.get("thought"):
            thoughts.append(text)
        elif text or signature is None:
            texts.append({"type": "text", "text": text})
    content: Any = texts
    if len(texts) < 2:
        content = texts[0]["text"] if texts else None if calls or thoughts else ""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if extra is not None:
        message["extra_content"] = extra
    return message


def _call(part: dict[str, Any], at: str, made: str, open_calls: dict[str, list[str]]) -> dict[str, Any]:
    said = named(part["functionCall"], f"{at}.functionCall")
    name = _string(said.get("name"), f"{at}.functionCall.name")
    call: dict[str, Any] = {
        "id": said.get("id") or made,
        "type": "function",
        "function": {"name": name, "arguments": _encode(said.get("args", {})).decode()},
    }
    open_calls.setdefault(name, []).append(call["id"])
    if part.get("thoughtSignature") not in (None, UNSIGNED):
        call["extra_content"] = signed(part["thoughtSignature"])
    return call


def _string(value: Any, at: str) -> str:
    if type(value) is not str:
        raise InvalidRequest(f"{at}: expected a text, got {type(value).__name__}")
    return value
