"""Canonical messages → `systemInstruction` and `contents` of Gemini's wire.

Sources: the Gemini API's reference, "Generating content" (Content, Part, Blob, FileData, FunctionCall,
FunctionResponse); its guides "Function calling", "Thought signatures", "File input methods" and "Media resolution".
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported

_decode = msgspec.json.Decoder().decode

UNSIGNED = "skip_thought_signature_validator"
"""Replaces the signature of a call that another model made, or whose signature is lost: Gemini 3 refuses a call
without one (guide "Thought signatures", frequent questions)."""
RESOLUTIONS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}
_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEYS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "tool": {"role", "content", "tool_call_id", "name"},
    "assistant": {"role", "content", "refusal", "tool_calls", "reasoning_content", "reasoning", "extra_content"},
}
_EXTENSIONS = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "heic": "image/heic",
    "heif": "image/heif", "gif": "image/gif", "pdf": "application/pdf", "mp4": "video/mp4", "mov": "video/quicktime",
    "webm": "video/webm", "mp3": "audio/mp3", "wav": "audio/wav",
}  # fmt: skip
"""Media types of addresses, by their endings; for any other the server looks itself."""


def has_levels(model: str) -> bool:
    """Returns True if a model is of the third generation or later: it thinks by levels instead of budgets, demands the
    signatures of its thoughts, and takes a resolution with each image."""
    return not model.rpartition("/")[2].startswith(("gemini-1", "gemini-2", "gemma", "learnlm"))


def samples(model: str) -> bool:
    """Returns True if a model heeds temperature, top_p and top_k: from Gemini 3.5 Flash-Lite and 3.6 on, none does (the
    API's page "What's new in Gemini 3.6 Flash and 3.5 Flash-Lite")."""
    name = model.rpartition("/")[2]
    return not has_levels(model) or (
        name.startswith(("gemini-3-", "gemini-3.1-", "gemini-3.5-")) and not name.startswith("gemini-3.5-flash-lite")
    )


def wire_messages(messages: Any, wire: dict[str, Any], model: str, unsupported: Unsupported) -> None:
    """Puts `systemInstruction` and `contents` into `wire`. Raises InvalidRequest."""
    if type(messages) is not list or not messages:
        raise InvalidRequest("body.messages: expected a list with at least one message")
    contents: list[dict[str, Any]] = []
    system: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    """The function of each call until now, by the call's id."""
    levels = has_levels(model)
    for index, message in enumerate(messages):
        role = message.get("role") if type(message) is dict else None
        where = f"body.messages.{index}"
        if role not in _ROLES:
            raise InvalidRequest(
                f"{where}.role: {role!r} is not a role; one of: {', '.join(_ROLES)} (a result of the old `function` "
                "role is a `tool` message)"
            )
        if len(message) > 2:
            _check_keys(message, where, unsupported)
        content = message.get("content")
        if role == "user":
            contents.append({"role": "user", "parts": _parts(content, where, levels, unsupported)})
        elif role == "assistant":
            contents.append({"role": "model", "parts": _answer(message, where, calls, levels, unsupported)})
        elif role == "tool":
            _add_result(contents, _result(message, where, calls, levels, unsupported))
        else:
            if contents:
                _note_moved(where, unsupported)
            system += _texts(content, where, unsupported)
    if not contents:
        raise InvalidRequest("body.messages: Gemini needs a message of the user in addition to the system's; add one")
    if system:
        wire["systemInstruction"] = {"parts": system}
    wire["contents"] = contents


def _note_moved(where: str, unsupported: Unsupported) -> None:
    unsupported.lose(where, "Gemini takes system messages only before the conversation: move it there")
    unsupported.warnings[-1] = f"{where}: the system message was moved to the front, for its place can't be kept"


def _check_keys(message: dict[str, Any], where: str, unsupported: Unsupported) -> None:
    keys = _KEYS[message["role"]]
    for key, value in message.items():
        # Replies come back as history, with fields that are null or empty.
        if key not in keys and value:
            unsupported.lose(f"{where}.{key}")


def _list(content: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Content parts with their paths."""
    if type(content) is not list or not all(type(part) is dict for part in content):
        raise InvalidRequest(f"{where}.content: expected a text or a list of parts, got {type(content).__name__}")
    return [(f"{where}.content.{index}", part) for index, part in enumerate(content)]


def _texts(content: Any, where: str, unsupported: Unsupported) -> list[dict[str, Any]]:
    """Content that can only be text."""
    if isinstance(content, str):
        return [{"text": content}]
    parts = []
    for at, part in _list(content, where):
        if part.get("type") == "text":
            parts.append({"text": _string(part.get("text"), f"{at}.text")})
        elif part.get("type") == "refusal":
            parts.append({"text": _string(part.get("refusal"), f"{at}.refusal")})
        else:
            raise InvalidRequest(f"{at}.type: expected text here, not {part.get('type')!r}")
    return parts


def _parts(content: Any, where: str, levels: bool, unsupported: Unsupported) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [
        {"text": _string(part.get("text"), f"{at}.text")}
        if part.get("type") == "text"
        else _media(part, at, levels, unsupported)
        for at, part in _list(content, where)
    ]


def _media(part: dict[str, Any], at: str, levels: bool, unsupported: Unsupported) -> dict[str, Any]:
    """A part that is not a text. Dropping one would change the request, so none ever is."""
    kind = part.get("type")
    said = part.get(kind) if type(kind) is str else None
    if kind in ("image_url", "video_url"):
        said = {"url": said} if type(said) is str else said
        if type(said) is not dict:
            raise InvalidRequest(f"{at}.{kind}: expected an object with a url")
        wire = _file(said.get("url"), f"{at}.{kind}.url")
        detail = said.get("detail")
        if detail not in (None, "auto"):
            if levels and detail in RESOLUTIONS:
                wire["mediaResolution"] = {"level": RESOLUTIONS[detail]}
            else:
                unsupported.lose(
                    f"{at}.{kind}.detail", f"this Gemini model takes no resolution {detail!r} of one image"
                )
        return wire
    if kind == "input_audio" and type(said) is dict:
        form = _string(said.get("format"), f"{at}.input_audio.format")
        data = _string(said.get("data"), f"{at}.input_audio.data")
        return {"inlineData": {"mimeType": f"audio/{form}", "data": data}}
    if kind == "file" and type(said) is dict:
        if said.get("filename"):
            # A label, which every client has to give; nothing of the request depends on it.
            unsupported.warnings.append(f"{at}.file.filename was dropped: Gemini takes no names of files")
        where = "file_data" if said.get("file_data") else "file_id"
        return _file(said.get(where), f"{at}.file.{where}")
    raise InvalidRequest(f"{at}.type: Gemini takes text, image_url, input_audio, video_url and file here, not {kind!r}")


def _file(url: Any, at: str) -> dict[str, Any]:
    """The part of a data URL (RFC 2397) or of an address."""
    url = _string(url, at)
    if not url.startswith("data:"):
        if "://" not in url:
            raise InvalidRequest(f"{at}: expected an address or data:TYPE;base64,DATA; Gemini can't reach {url[:40]!r}")
        kind = _EXTENSIONS.get(url.partition("?")[0].rpartition(".")[2].lower())
        return {"fileData": {"mimeType": kind, "fileUri": url} if kind else {"fileUri": url}}
    head, comma, data = url.partition(",")
    kind, mark, rest = head[5:].partition(";base64")
    if not comma or not mark or rest or not kind:
        raise InvalidRequest(f"{at}: expected data:TYPE;base64,DATA")
    return {"inlineData": {"mimeType": kind, "data": data}}


def _answer(
    message: dict[str, Any], where: str, calls: dict[str, str], levels: bool, unsupported: Unsupported
) -> list[dict[str, Any]]:
    content, said = message.get("content"), message.get("tool_calls")
    if len(message) == 2 and isinstance(content, str):
        return [{"text": content}]
    parts: list[dict[str, Any]] = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        parts.append({"text": thought, "thought": True})
    if content is not None and (content or not said):
        parts += _texts(content, where, unsupported)
    if message.get("refusal"):
        parts.append({"text": message["refusal"]})
    signature = _signature(message)
    if signature:
        if not parts or parts[-1].get("thought"):
            parts.append({"text": ""})
        parts[-1]["thoughtSignature"] = signature
    if said:
        if type(said) is not list:
            raise InvalidRequest(f"{where}.tool_calls: expected a list, got {type(said).__name__}")
        made = [_call(call, f"{where}.tool_calls.{index}", calls) for index, call in enumerate(said)]
        if levels and not any("thoughtSignature" in part for part in made):
            made[0]["thoughtSignature"] = UNSIGNED
        parts += made
    return parts or [{"text": ""}]


def _call(call: Any, at: str, calls: dict[str, str]) -> dict[str, Any]:
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict:
        raise InvalidRequest(f"{at}: Gemini takes calls of functions only")
    name = _string(function.get("name"), f"{at}.function.name")
    arguments = function.get("arguments") or "{}"
    try:
        given = _decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError) as error:
        raise InvalidRequest(f"{at}.function.arguments: not JSON ({error}); Gemini takes an object") from error
    if type(given) is not dict:
        raise InvalidRequest(f"{at}.function.arguments: Gemini takes an object, got {arguments[:40]!r}")
    made: dict[str, Any] = {"name": name, "args": given}
    if call.get("id"):
        made["id"] = _string(call["id"], f"{at}.id")
        calls[made["id"]] = name
    part = {"functionCall": made}
    signature = _signature(call)
    return {**part, "thoughtSignature": signature} if signature else part


def _signature(source: dict[str, Any]) -> str | None:
    extra = source.get("extra_content")
    google = extra.get("google") if type(extra) is dict else None
    return google.get("thought_signature") if type(google) is dict else None


def _add_result(contents: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """The results of one turn's calls have to be in one content."""
    if contents and "functionResponse" in contents[-1]["parts"][-1]:
        contents[-1]["parts"].append(part)
    else:
        contents.append({"role": "user", "parts": [part]})


def _result(
    message: dict[str, Any], where: str, calls: dict[str, str], levels: bool, unsupported: Unsupported
) -> dict[str, Any]:
    """A tool's result. Gemini needs the function's name, which the canonical form tells only with the call."""
    at = f"{where}.tool_call_id"
    call = _string(message.get("tool_call_id"), at)
    name = calls.get(call) or message.get("name")
    if not name:
        raise InvalidRequest(f"{at}: no tool call {call!r} is before it; Gemini needs the name of its function")
    said: dict[str, Any] = {"id": call, "name": name}
    content = message.get("content")
    if not isinstance(content, str):
        parts = _parts(content, where, levels, unsupported)
        content = "".join(part["text"] for part in parts if "text" in part)
        media = [part for part in parts if "text" not in part]
        if media:
            said["parts"] = media
    said["response"] = _response(content)
    return {"functionResponse": said}


def _response(content: str) -> dict[str, Any]:
    """A result is an object here. One that says it in JSON is taken at its word; any other text is an `output`."""
    if content.startswith("{"):
        try:
            given = _decode(content)
        except (msgspec.DecodeError, RecursionError):
            return {"output": content}
        # An object that looks like a wrapped text is wrapped itself, so that the other side can tell them apart.
        if type(given) is dict and not (given.keys() == {"output"} and type(given["output"]) is str):
            return given
    return {"output": content}


def _string(value: Any, at: str) -> str:
    if type(value) is not str:
        raise InvalidRequest(f"{at}: expected a text, got {type(value).__name__}")
    return value
