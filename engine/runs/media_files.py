"""Images and audio of results as files of the run: `output.media=files`."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

import msgspec

from engine.core.atomic_file import CantWrite, sync_directory
from engine.core.errors import OutputError
from engine.media.reader import extension_of

FOLDER = "media"
"""Its name in the run's directory."""
_SIGNS = (b'"b64_json":"', b'"audio":{', b'"image":{')
"""Each line that may hold media contains one of these."""


class MediaFiles:
    """The media of one run. Made again from the journal each time, under the same names: a crash loses nothing."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._made = False

    def put(self, line: bytes, index: int) -> bytes:
        """Returns the line of results.jsonl with each image and audio replaced by the path of its file:
        `{"path": "media/…"}`, a media value that a row of another run can name. `index` is the row's, from 0. Raises
        OutputError."""
        if not any(sign in line for sign in _SIGNS):
            return line
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return line  # nested too deep to parse
        body = (record.get("response") or {}).get("body")
        if type(body) is not dict:
            return line
        found = [(holder, name) for holder, name in _places(body) if type(holder.get(name)) is str]
        for number, (holder, name) in enumerate(found, 1):
            try:
                data = base64.b64decode(holder[name], validate=True)
            except (binascii.Error, ValueError):
                continue  # not base64: it stays as the provider sent it
            extension = holder.get("format") or body.get("output_format") or extension_of(data) or "bin"
            path = Path(FOLDER) / f"{index + 1:06}-{number}.{_plain(extension)}"
            self._write(self._run / path, data)
            del holder[name]
            holder["path"] = path.as_posix()
        return msgspec.json.encode(record)

    def close(self) -> None:
        """Makes the files' names durable. Raises OutputError."""
        if self._made:
            try:
                sync_directory(self._run / FOLDER)
            except OSError as error:
                raise self._refused(error) from error

    def _write(self, path: Path, data: bytes) -> None:
        try:
            if not self._made:
                path.parent.mkdir(exist_ok=True)
                self._made = True
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        what = error.strerror or error
        return CantWrite(f"{self._run / FOLDER} can't be written: {what}; free disk space or choose another disk")


def _places(body: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Returns the objects of a reply that hold base64, each with the key of the base64."""
    found = [(item, "b64_json") for item in _objects(body.get("data"))]
    found += [(audio, "data") for audio in _objects([body.get("audio")])]
    outputs = body.get("outputs")
    for output in _objects(outputs if type(outputs) is list else [outputs]):
        found += [(made, "data") for made in _objects([output.get("image"), output.get("audio")])]
    messages = _objects([choice.get("message") for choice in _objects(body.get("choices"))])
    return found + [(audio, "data") for audio in _objects([message.get("audio") for message in messages])]


def _objects(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if type(item) is dict] if type(items) is list else []


def _plain(extension: Any) -> str:
    """Returns an extension that a provider can't turn into a path."""
    text = str(extension)[:8]
    return text if text.isascii() and text.isalnum() else "bin"
