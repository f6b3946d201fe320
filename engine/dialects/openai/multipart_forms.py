"""Uploads on the OpenAI wire: transcriptions, translations and edits of images go as forms, not as JSON.

Source: OpenAI's API reference, "Create transcription", "Create translation" and "Create image edit"; the names of lists
and objects in a form are those that its official client writes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media
from engine.core.task_table import having
from engine.dialects.client import WireCall
from engine.dialects.codecs.multipart import form_fields, read_form, write_form

FILES: dict[str, tuple[str, ...]] = having("files")
"""The tasks that go as forms, and the fields that are files; the first one must be there."""
_LISTS = ("image", "include", "keywords", "languages", "known_speaker_names", "known_speaker_references")
_NUMBERS = (
    "n", "temperature", "output_compression", "partial_images", "frame_count", "frame_duration_ms", "seed", "strength",
    "num_inference_steps", "guidance_scale", "rng_seed", "threshold", "prefix_padding_ms", "silence_duration_ms",
)  # fmt: skip
_KEY = re.compile(r"\[([^\[\]]*)\]")


def encode_form(task: str, path: str, body: dict[str, Any]) -> WireCall:
    """The call for a body whose files are `Media`. Raises InvalidRequest."""
    names = FILES[task]
    # Groq reads an address in `url` instead of a file.
    if body.get(names[0]) is None and not body.get("url"):
        raise InvalidRequest(f"body.{names[0]}: the task {task} needs a file")
    for name in names:
        value = body.get(name)
        for each in value if type(value) is list else (value,):
            if each is not None and not isinstance(each, Media):
                raise InvalidRequest(f"body.{name}: expected the bytes of a file, got {type(each).__name__}")
    body = {
        name: value[0] if name in names and type(value) is list and len(value) == 1 else value
        for name, value in body.items()
    }
    try:
        content, kind = write_form([field for name, value in body.items() for field in form_fields(name, value)])
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"body: can't be written as UTF-8: {error.reason}") from error
    return WireCall("POST", path, content, {"content-type": kind})


def decode_form(task: str, content: bytes, content_type: str) -> dict[str, Any]:
    """The body that a client's form says. Raises InvalidRequest."""
    body: dict[str, Any] = {}
    for full, value in read_form(content, content_type):
        name, *keys = [full.partition("[")[0], *_KEY.findall(full)]
        place: Any = body
        for key in keys[:-1] if keys and keys[-1] == "" else keys:
            place = place.setdefault(name, {})
            if type(place) is not dict:
                raise InvalidRequest(f"body.{full}: it is said twice, in different forms")
            name = key
        said = value if isinstance(value, Media) else _typed(name, value)
        if keys and keys[-1] == "":
            said = [*_as_list(place.get(name)), said]
        elif name in place:
            said = [*_as_list(place[name]), said]
        place[name] = said
    for name in _LISTS[1:]:
        if name in body and type(body[name]) is not list:
            body[name] = [body[name]]
    for name in FILES[task]:
        if name in body and not all(isinstance(each, Media) for each in _as_list(body[name])):
            raise InvalidRequest(f"body.{name}: expected a file")
    return body


def _typed(name: str, text: str) -> Any:
    """Returns a field's text as a value."""
    if name == "stream" and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if name in _NUMBERS or (name == "chunking_strategy" and text.startswith("{")):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"body.{name}: {text[:40]!r} can't be read: {error}") from error
    return text


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if type(value) is list else [value]
