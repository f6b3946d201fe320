"""Forms with files: `multipart/form-data` (RFC 7578), written and read.

Lists and objects in a form have no standard. OpenAI's clients write a list as `name[]`, once for each item, and an
object as `name[field]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media

_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)
_DISPOSITION = re.compile(rb'(\w+)="((?:[^"\\]|\\.)*)"')


def write_form(fields: Iterable[tuple[str, str | Media]]) -> tuple[bytes, str]:
    """The body of a form and its content type. The same fields make the same bytes."""
    pieces: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        head = f'content-disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, Media):
            head += f'; filename="{_quoted(value.filename)}"\r\ncontent-type: {_one_line(value.content_type)}'
            pieces.append((head.encode(), value.data))
        else:
            pieces.append((head.encode(), value.encode()))
    boundary = b"engine-form-boundary"
    while any(boundary in content for _, content in pieces):
        boundary += b"-x"
    body = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, content) for head, content in pieces)
    return body + b"--%b--\r\n" % boundary, f"multipart/form-data; boundary={boundary.decode()}"


def form_fields(name: str, value: Any) -> list[tuple[str, str | Media]]:
    """The fields of a form that say what a body's field says; null says nothing."""
    if isinstance(value, Media):
        return [(name, value)]
    if isinstance(value, dict):
        return [field for key, item in value.items() for field in form_fields(f"{name}[{key}]", item)]
    if isinstance(value, list | tuple):
        return [field for item in value for field in form_fields(f"{name}[]", item)]
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, str(value))]


def read_form(content: bytes, content_type: str) -> list[tuple[str, str | Media]]:
    """The fields of a form, in order. Raises InvalidRequest."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise InvalidRequest("the form has no boundary in its content-type header")
    delimiter = b"--" + found[1].strip().encode()
    if not content.startswith(delimiter):
        content = content[max(content.find(b"\r\n" + delimiter) + 2, 0) :]
    pieces = (b"\r\n" + content).split(b"\r\n" + delimiter)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InvalidRequest("the form is cut off: its last boundary is missing")
    return [_field(piece.removeprefix(b"\r\n")) for piece in pieces[1:-1]]


def _field(piece: bytes) -> tuple[str, str | Media]:
    head, gap, content = piece.partition(b"\r\n\r\n")
    said: dict[str, str] = {}
    kind = ""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            said = {key.decode().lower(): _unquoted(text) for key, text in _DISPOSITION.findall(value)}
        elif name.strip().lower() == b"content-type":
            kind = value.strip().decode("latin-1")
    if not gap or "name" not in said:
        raise InvalidRequest("the form has a part without a name")
    if "filename" in said:
        return said["name"], Media(content, said["filename"] or "file", kind or "application/octet-stream")
    try:
        return said["name"], content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"body.{said['name']}: not UTF-8: {error.reason}") from error


def _quoted(text: str) -> str:
    """As browsers and HTTP clients write it (WHATWG HTML, "Multipart form data")."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _unquoted(text: bytes) -> str:
    plain = text.decode("utf-8", "replace").replace('\\"', '"').replace("\\\\", "\\")
    return plain.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())
