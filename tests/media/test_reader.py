"""Media values: what a caller may write, and what becomes of it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.media_access import INLINE_ONLY, Media, MediaAccess
from engine.media.reader import MediaReader, media_access
from engine.schemas import RunSpec

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt sound"
PNG = b"\x89PNG\r\n\x1a\npixels"
TEXT = base64.b64encode(PNG).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "rows"
    inside.mkdir()
    (inside / "clip.wav").write_bytes(WAV)
    (inside / "blob").write_bytes(PNG)
    (inside / "empty.wav").write_bytes(b"")
    (tmp_path / "secret.txt").write_bytes(b"not yours")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    return inside


def reader(folder: Path | None, **limits: Any) -> MediaReader:
    return MediaReader(MediaAccess(folder, **limits))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"data:image/png;base64,{TEXT}", Media(PNG, "file.png", "image/png")),
        ("data:text/plain,a%20b", Media(b"a b", "file.txt", "text/plain")),
        ("data:,a", Media(b"a", "file.txt", "text/plain")),
        ({"data": TEXT}, Media(PNG, "file.png", "image/png")),
        ({"data": TEXT, "format": "jpg"}, Media(PNG, "file.jpg", "image/jpeg")),
        ({"data": TEXT, "filename": "cat.webp"}, Media(PNG, "cat.webp", "image/webp")),
        ({"data": TEXT, "content_type": "image/x-own"}, Media(PNG, "file.png", "image/x-own")),
        ({"data": f"data:audio/wav;base64,{TEXT}", "filename": "a.wav"}, Media(PNG, "a.wav", "audio/wav")),
        ({"data": base64.b64encode(b"\x00\x01").decode()}, Media(b"\x00\x01", "file", "application/octet-stream")),
        (Media(PNG, "cat.png", "image/png"), Media(PNG, "cat.png", "image/png")),
    ],
)
async def test_bytes_in_the_request_itself(value: Any, expected: Media) -> None:
    assert await MediaReader(INLINE_ONLY).read(value, "body.file") == expected


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (WAV, "audio/wav"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"), (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"), (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"), (b"%PDF-1.7", "application/pdf"),
        (b"\x1aE\xdf\xa3", "audio/webm"), (b"\0\0\0\x20ftypM4A ", "audio/mp4"), (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"nobody knows", "application/octet-stream"),
    ],
)  # fmt: skip
async def test_the_first_bytes_say_what_nobody_else_did(data: bytes, kind: str) -> None:
    value = {"data": base64.b64encode(data).decode()}
    assert (await MediaReader(INLINE_ONLY).read(value, "body.file")).content_type == kind


async def test_files_are_found_from_their_folder(folder: Path) -> None:
    clip = Media(WAV, "clip.wav", "audio/wav")
    files = reader(folder)
    for value in ("clip.wav", {"path": "clip.wav"}, str(folder / "clip.wav"), f"file://{folder}/clip.wav"):
        assert await files.read(value, "body.file") == clip
    assert await files.read({"path": "clip.wav", "filename": "x.mp3"}, "body.file") == Media(WAV, "x.mp3", "audio/mpeg")
    assert await files.read("blob", "body.file") == Media(PNG, "blob", "image/png")


@pytest.mark.parametrize("name", ["../secret.txt", "link.txt", "../rows/../secret.txt"])
async def test_no_path_leads_out_of_the_folder(folder: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is outside .*; set media\.root to a folder that holds it"):
        await reader(folder).read(name, "body.file")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("gone.wav", r"body\.file: no file gone\.wav in .* \(media\.root\)"),
        (".", r"no file \. in"),
        ("a\0b", "can't be read"),
        ("empty.wav", "it is empty"),
        ("ftp://example.com/a.wav", r"'ftp://example\.com/a\.wav' can't be read"),
        ("", "expected a file's path, a data: URL"),
        (5, "got int"),
        ({}, "got nothing; expected one of data, path, url, .*"),
        ({"path": "a", "data": "b"}, "expected one of data, path, url"),
        ({"path": "a", "sound": "b"}, "got path, sound"),
        ({"path": 5}, r"body\.file\.path: expected text"),
        ({"data": "%%%"}, "not valid base64"),
        ("data:image/png;base64", "a data: URL has a comma"),
        ("https://example.com/a.wav", r"set media\.allow_urls=true"),
    ],
)
async def test_what_can_not_be_read_says_where_and_why(folder: Path, value: Any, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        await reader(folder).read(value, "body.file")


@pytest.mark.parametrize("value", ["clip.wav", f"data:audio/wav;base64,{base64.b64encode(WAV).decode()}"])
async def test_a_file_has_a_largest_size(folder: Path, value: str) -> None:
    files = reader(folder, max_bytes=10)
    with pytest.raises(InvalidRequest, match=r"has 2\d bytes, more than 10 \(media\.max_bytes\)"):
        await files.read(value, "body.file")


async def test_a_caller_without_a_folder_can_name_no_file() -> None:
    with pytest.raises(InvalidRequest, match=r"body\.file: no files are read for this caller; send the bytes"):
        await MediaReader(INLINE_ONLY).read("clip.wav", "body.file")


async def test_a_text_may_be_base_64_where_the_wire_has_it_so(folder: Path) -> None:
    files = reader(folder)
    assert (await files.read(TEXT, "body.inputs", base64_text=True)).data == PNG
    assert (await files.read("clip.wav", "body.inputs", base64_text=True)).data == WAV


def test_files_are_beside_the_rows_unless_the_spec_says_otherwise(tmp_path: Path) -> None:
    def access(workload: dict[str, Any], **media: Any) -> MediaAccess:
        parts = {
            "provider": {"kind": "simulated"}, "hardware": {"kind": "auto"}, "model": {"name": "m"},
            "workload": workload, "media": media,
        }  # fmt: skip
        return media_access(RunSpec.model_validate(parts))

    rows = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}
    assert access(rows).root == tmp_path
    assert access({"kind": "stdin"}).root == Path()
    found = access(rows, root="/data", allow_urls=True, max_bytes=5, timeout_s=1)
    assert found == MediaAccess(Path("/data"), True, 5, 1.0)
