"""The media fields of a request's body, by task, and the body with these read.

A field that goes as a file (`file` of a transcription, `image` of an edit, Hugging Face's `inputs`) becomes a `Media`.
A part of a message becomes what the OpenAI wire has there: a `data:` URL, or base64 next to its format. Parts in
that form, and https URLs of images, which providers read themselves, stay as they are.
"""

from __future__ import annotations

from typing import Any

from engine.core.task_table import having
from engine.media.reader import MediaReader

_FILES = having("files")
_INPUTS = having("medium")
"""Tasks whose `inputs` are a medium, or an object with one under this name."""
_MESSAGES = having("messages")
_WHOLE = frozenset({*_FILES, *_INPUTS})


def may_hold_media(task: str, body: dict[str, Any]) -> bool:
    """Returns False if a body can't hold media, as for nearly every chat, at next to no cost."""
    name = _MESSAGES.get(task)
    if name is None:
        return task in _FILES or task in _INPUTS or task == "dataprep"
    messages = body.get(name)
    if type(messages) is not list:
        return False
    return any(type(message) is dict and type(message.get("content")) is not str for message in messages)


async def read_media(task: str, body: dict[str, Any], reader: MediaReader) -> dict[str, Any]:
    """Returns the body with its media read; the body itself if it has none. Raises InvalidRequest, with the field."""
    name = _MESSAGES.get(task)
    if name is not None:
        messages = body.get(name)
        read = await _messages(messages, f"body.{name}", reader) if type(messages) is list else messages
        return body if read is messages else {**body, name: read}
    if task in _INPUTS:
        return await _with_inputs(body, _INPUTS[task], reader)
    if task == "dataprep":
        return await _with_files(body, reader)
    changed = dict(body)
    for name in _FILES[task]:
        value = body.get(name)
        if isinstance(value, list):
            changed[name] = [await reader.read(each, f"body.{name}[{index}]") for index, each in enumerate(value)]
        elif value is not None:
            changed[name] = await reader.read(value, f"body.{name}")
    return changed


async def _with_inputs(body: dict[str, Any], medium: str, reader: MediaReader) -> dict[str, Any]:
    inputs = body.get("inputs")
    if isinstance(inputs, dict) and medium in inputs:
        read = await reader.read(inputs[medium], f"body.inputs.{medium}", base64_text=True)
        return {**body, "inputs": {**inputs, medium: read}}
    if isinstance(inputs, list):
        many = [await reader.read(each, f"body.inputs[{index}]", base64_text=True) for index, each in enumerate(inputs)]
        return {**body, "inputs": many}
    if inputs is None:
        return body
    return {**body, "inputs": await reader.read(inputs, "body.inputs", base64_text=True)}


async def _with_files(body: dict[str, Any], reader: MediaReader) -> dict[str, Any]:
    inputs = body.get("inputs")
    if not isinstance(inputs, dict) or not isinstance(inputs.get("files"), list):
        return body
    files = [await reader.read(each, f"body.inputs.files[{index}]") for index, each in enumerate(inputs["files"])]
    return {**body, "inputs": {**inputs, "files": files}}


async def _messages(messages: list[Any], where: str, reader: MediaReader) -> list[Any]:
    """The messages, or items, with the parts of their content read; the list itself when nothing changed."""
    changed: list[Any] | None = None
    for index, message in enumerate(messages):
        if type(message) is not dict:
            continue
        content = message.get("content")
        if type(content) is list:
            parts = await _parts(content, f"{where}[{index}].content", reader)
            new = message if parts is content else {**message, "content": parts}
        else:
            new = await _part(message, f"{where}[{index}]", reader)  # a moderation's input is a list of parts
        if new is not message:
            changed = list(messages) if changed is None else changed
            changed[index] = new
    return messages if changed is None else changed


async def _parts(parts: list[Any], where: str, reader: MediaReader) -> list[Any]:
    changed: list[Any] | None = None
    for index, part in enumerate(parts):
        if type(part) is not dict:
            continue
        new = await _part(part, f"{where}[{index}]", reader)
        if new is not part:
            changed = list(parts) if changed is None else changed
            changed[index] = new
    return parts if changed is None else changed


async def _part(part: dict[str, Any], where: str, reader: MediaReader) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("image_url", "audio_url", "video_url"):
        return await _url_part(part, str(kind), where, reader)
    if kind == "input_image":
        value = part.get("image_url")
        if _goes_as_it_is(value):
            return part
        return {**part, "image_url": (await reader.read(value, f"{where}.image_url")).url}
    if kind == "input_audio":
        return await _audio_part(part, where, reader)
    if kind == "file":
        given = part.get("file")
        fields = {"file_data": given} if isinstance(given, str) else given
        read = await _file_part(fields, f"{where}.file", reader) if isinstance(fields, dict) else fields
        return part if read is given else {**part, "file": read}
    return await _file_part(part, where, reader) if kind == "input_file" else part


async def _url_part(part: dict[str, Any], name: str, where: str, reader: MediaReader) -> dict[str, Any]:
    given = part.get(name)
    fields = given if isinstance(given, dict) and "url" in given else {"url": given}
    value = fields["url"]
    if _goes_as_it_is(value):
        return part if fields is given or value is None else {**part, name: fields}
    return {**part, name: {**fields, "url": (await reader.read(value, f"{where}.{name}")).url}}


async def _audio_part(part: dict[str, Any], where: str, reader: MediaReader) -> dict[str, Any]:
    given = part.get("input_audio")
    fields = given if isinstance(given, dict) and "data" in given else {"data": given}
    value = fields["data"]
    if isinstance(value, str) and fields is given and not value.startswith("data:"):
        return part  # base64, as the wire has it
    read = await reader.read(value, f"{where}.input_audio")
    return {**part, "input_audio": {"format": read.extension, **fields, "data": read.base64}}


async def _file_part(fields: dict[str, Any], where: str, reader: MediaReader) -> dict[str, Any]:
    value = fields.get("file_data")
    if value is None or (isinstance(value, str) and value.startswith("data:")):
        return fields
    read = await reader.read(value, f"{where}.file_data", base64_text=True)
    return {"filename": read.filename, **fields, "file_data": read.url}


def _goes_as_it_is(value: Any) -> bool:
    """Returns True if a provider can read it: an address other than of this machine's files, or nothing."""
    return value is None or (
        isinstance(value, str) and ":" in value[:12] and not value.startswith("file:") and value[1:2] != ":"
    )
