"""Reads the images, audio and documents that a request's body names.

A media value is a `data:` URL; `{"data": BASE64}`; a file, as its path or `{"path": …}`; or an https URL, as text or
`{"url": …}`. Objects may also name `filename`, `format` (an extension) and `content_type`. Which of these a caller
may use is a `MediaAccess`. `data:` URLs are those of RFC 2397.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media, MediaAccess

if TYPE_CHECKING:
    from engine.schemas import RunSpec

CONTENT_TYPES = {
    "wav": "audio/wav", "mp3": "audio/mpeg", "mpga": "audio/mpeg", "mpeg": "audio/mpeg", "m4a": "audio/mp4",
    "ogg": "audio/ogg", "oga": "audio/ogg", "opus": "audio/ogg", "flac": "audio/flac", "aac": "audio/aac",
    "pcm": "audio/pcm", "webm": "audio/webm", "mp4": "video/mp4", "png": "image/png", "jpg": "image/jpeg",
    "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp", "tiff": "image/tiff",
    "svg": "image/svg+xml", "pdf": "application/pdf", "txt": "text/plain", "json": "application/json",
}  # fmt: skip
"""By extension. A table and not the system's: a request must not differ from one machine to the next."""
_EXTENSIONS = {kind: extension for extension, kind in reversed(CONTENT_TYPES.items())} | {"audio/x-wav": "wav"}
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"ID3", "mp3"), (b"\xff\xfb", "mp3"), (b"\xff\xf3", "mp3"), (b"OggS", "ogg"), (b"fLaC", "flac"),
    (b"\x1aE\xdf\xa3", "webm"), (b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"),
    (b"%PDF", "pdf"),
)  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//|$)")

Fetch = Callable[[str, int, float], Awaitable[tuple[bytes, str]]]
"""Reads a URL: the address, the most bytes, the most seconds → the bytes and their content type. Raises
InferenceError."""


def media_access(spec: RunSpec) -> MediaAccess:
    """Returns the media that a run spec lets this machine's user read."""
    media, path = spec.media, getattr(spec.workload, "path", None)
    if media.root is not None:
        root = Path(media.root).expanduser()
    else:
        root = Path(path).expanduser().parent if path else Path()
    return MediaAccess(root, media.allow_urls, media.max_bytes, media.timeout_s)


class MediaReader:
    """Reads media values for one caller."""

    __slots__ = ("_access", "_fetch")

    def __init__(self, access: MediaAccess, fetch: Fetch | None = None) -> None:
        self._access = access
        self._fetch = fetch

    async def read(self, value: Any, where: str, *, base64_text: bool = False) -> Media:
        """The bytes of one value; `where` is its path in the body, for messages. `base64_text`: a text that is valid
        base64 is that and not a path, as Hugging Face's `inputs` have it. Raises InvalidRequest."""
        if isinstance(value, Media):
            return self._sized(value, where)
        if isinstance(value, str) and value:
            return await self._read_text(value, where, base64_text)
        if isinstance(value, dict):
            return await self._read_object(value, where)
        raise InvalidRequest(
            f'{where}: expected a file\'s path, a data: URL, {{"data": BASE64}} or {{"path": …}}; '
            f"got {type(value).__name__}"
        )

    async def _read_text(self, text: str, where: str, base64_text: bool) -> Media:
        if text.startswith("data:"):
            return self._of_data_url(text, where)
        if text.startswith(("https://", "http://")):
            return await self._of_url(text, where)
        if base64_text and len(text) % 4 == 0 and _BASE64.match(text):
            return self._of_base64(text, where, {})
        if _SCHEME.match(text) and not text.startswith("file://"):
            raise InvalidRequest(f"{where}: {text[:80]!r} can't be read; use a path, a data: URL or an https URL")
        return await self._of_file(text.removeprefix("file://"), where)

    async def _read_object(self, value: dict[str, Any], where: str) -> Media:
        given = [name for name in ("data", "path", "url") if value.get(name) is not None]
        strange = value.keys() - {"data", "path", "url", "filename", "format", "content_type"}
        if len(given) != 1 or strange:
            raise InvalidRequest(
                f"{where}: got {', '.join(sorted(value)) or 'nothing'}; "
                "expected one of data, path, url, with at most filename, format, content_type"
            )
        name = given[0]
        content = value[name]
        if not isinstance(content, str) or not all(isinstance(each, str | None) for each in value.values()):
            raise InvalidRequest(f"{where}.{name}: expected text")
        if name == "data" and not content.startswith("data:"):
            return self._of_base64(content, where, value)
        if name == "path":
            found = await self._of_file(content, where)
        elif name == "url":
            found = await self._of_url(content, where)
        else:
            found = self._of_data_url(content, where)
        if not value.keys() - {name}:
            return found
        return _named(found.data, value, found)

    def _of_data_url(self, text: str, where: str) -> Media:
        head, comma, content = text[5:].partition(",")
        if not comma:
            raise InvalidRequest(f"{where}: a data: URL has a comma before its content, data:image/png;base64,…")
        kind, *options = head.split(";")
        if "base64" in options:
            return self._of_base64(unquote_to_bytes(content).decode("latin-1"), where, {"content_type": kind or None})
        return self._sized(_named(unquote_to_bytes(content), {"content_type": kind or "text/plain"}), where)

    def _of_base64(self, text: str, where: str, said: dict[str, Any]) -> Media:
        if len(text) * 3 // 4 > self._access.max_bytes + 2:
            raise self._too_large(where, "it", len(text) * 3 // 4)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest(f"{where}: not valid base64: {error}") from error
        return self._sized(_named(data, said), where)

    async def _of_file(self, name: str, where: str) -> Media:
        if self._access.root is None:
            raise InvalidRequest(
                f'{where}: no files are read for this caller; send the bytes as {{"data": BASE64}} or a data: URL'
            )
        # A disk, and a network's all the more, may take its time; the event loop has none.
        return await asyncio.to_thread(self._read_file, self._access.root, name, where)

    def _read_file(self, root: Path, name: str, where: str) -> Media:
        try:
            folder = root.resolve()
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise InvalidRequest(f"{where}: {name} is outside {root}; set media.root to a folder that holds it")
            if not path.is_file():
                raise InvalidRequest(f"{where}: no file {name} in {root} (media.root)")
            size = path.stat().st_size
            if size > self._access.max_bytes:
                raise self._too_large(where, name, size)
            with path.open("rb") as file:
                data = file.read(self._access.max_bytes + 1)
        except (OSError, ValueError, RuntimeError) as error:  # ValueError: a zero byte; RuntimeError: a loop of links
            reason = getattr(error, "strerror", None) or error
            raise InvalidRequest(f"{where}: {name!r} can't be read: {reason}") from error
        return self._sized(_named(data, {"filename": path.name}), where)

    async def _of_url(self, url: str, where: str) -> Media:
        if not self._access.urls or self._fetch is None:
            raise InvalidRequest(
                f"{where}: no URLs are read for this caller; set media.allow_urls=true, or send the bytes"
            )
        if not url.startswith("https://"):
            raise InvalidRequest(f"{where}: only https URLs are read")
        data, kind = await self._fetch(url, self._access.max_bytes, self._access.timeout_s)
        name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
        said = {"content_type": kind.partition(";")[0].strip() or None}
        if name.rpartition(".")[2].lower() in CONTENT_TYPES:
            said["filename"] = name
        return self._sized(_named(data, said), where)

    def _sized(self, media: Media, where: str) -> Media:
        if not media.data:
            raise InvalidRequest(f"{where}: it is empty")
        if len(media.data) > self._access.max_bytes:
            raise self._too_large(where, media.filename, len(media.data))
        return media

    def _too_large(self, where: str, what: str, size: int) -> InvalidRequest:
        return InvalidRequest(f"{where}: {what} has {size} bytes, more than {self._access.max_bytes} (media.max_bytes)")


def _named(data: bytes, said: dict[str, Any], known: Media | None = None) -> Media:
    """The bytes with a name and a type: as said, else as known, else as the bytes themselves show."""
    name, kind = said.get("filename"), said.get("content_type")
    extension = (said.get("format") or "").lower().lstrip(".")
    if name is None and kind is None and not extension and known is not None:
        return known
    if not extension and name is not None and "." in name:
        extension = name.rpartition(".")[2].lower()
    if not extension and kind is not None:
        extension = _EXTENSIONS.get(kind, "")
    if not extension:
        extension = known.extension if known is not None else extension_of(data)
    if kind is None:
        kind = CONTENT_TYPES.get(extension, "application/octet-stream")
    return Media(data, name or (f"file.{extension}" if extension else "file"), kind)


def extension_of(data: bytes) -> str:
    """As the first bytes show it; empty: not known."""
    if data[:4] == b"RIFF":
        return {b"WAVE": "wav", b"WEBP": "webp"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return "m4a" if data[8:11] == b"M4A" else "mp4"
    return next((extension for magic, extension in _MAGIC if data.startswith(magic)), "")
