"""Where media stand in bodies, and what becomes of them there."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.media_access import INLINE_ONLY, Media, MediaAccess
from engine.media.fields import may_hold_media, read_media
from engine.media.reader import MediaReader

PNG = b"\x89PNG\r\n\x1a\npixels"
TEXT = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{TEXT}"
PICTURE = Media(PNG, "cat.png", "image/png")


@pytest.fixture
def reader(tmp_path: Path) -> MediaReader:
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "doc.pdf").write_bytes(b"%PDF")
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    return MediaReader(MediaAccess(tmp_path))


def chat(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"type": "image_url", "image_url": {"url": "cat.png"}}, {"type": "image_url", "image_url": {"url": URL}}),
        ({"type": "image_url", "image_url": "cat.png"}, {"type": "image_url", "image_url": {"url": URL}}),
        ({"type": "image_url", "image_url": {"data": TEXT}}, {"type": "image_url", "image_url": {"url": URL}}),
        (
            {"type": "image_url", "image_url": "https://example.com/a.png"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": {"path": "a.mp3"}}},
            {"type": "input_audio", "input_audio": {"format": "mp3", "data": "SUQz"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "data:audio/wav;base64,SUQz", "format": "mp3"}},
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        ),
        (
            {"type": "file", "file": "doc.pdf"},
            {"type": "file", "file": {"filename": "doc.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        ),
    ],
)
async def test_a_part_that_names_a_file_becomes_what_the_wire_has(
    reader: MediaReader, written: dict[str, Any], read: dict[str, Any]
) -> None:
    body = chat({"type": "text", "text": "hi"}, written)
    assert await read_media("chat", body, reader) == chat({"type": "text", "text": "hi"}, read)


async def test_what_the_wire_has_already_stays_the_same_object(reader: MediaReader) -> None:
    body = chat(
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "gs://bucket/a.png"}},
        {"type": "input_audio", "input_audio": {"data": TEXT, "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "cat.png"},
        "plain",
    )
    assert await read_media("chat", body, reader) is body


async def test_items_of_a_response(reader: MediaReader) -> None:
    body = {
        "input": [
            {"type": "function_call_output", "call_id": "1", "output": "cat.png"},
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "cat.png", "detail": "low"},
                    {"type": "input_file", "file_data": {"path": "doc.pdf"}},
                    {"type": "input_image", "file_id": "file-1"},
                ],
            },
        ]
    }
    read = await read_media("response", body, reader)
    assert read["input"][0] is body["input"][0]
    assert read["input"][1]["content"] == [
        {"type": "input_image", "image_url": URL, "detail": "low"},
        {"type": "input_file", "filename": "doc.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_image", "file_id": "file-1"},
    ]


async def test_a_moderations_input_is_a_list_of_parts(reader: MediaReader) -> None:
    body = {"input": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "cat.png"}}]}
    read = await read_media("moderation", body, reader)
    assert read["input"][1] == {"type": "image_url", "image_url": {"url": URL}}


async def test_files_of_a_form_become_bytes(reader: MediaReader) -> None:
    body = {"image": ["cat.png", URL], "mask": "cat.png", "prompt": "a hat"}
    read = await read_media("image-edit", body, reader)
    assert read == {"image": [PICTURE, Media(PNG, "file.png", "image/png")], "mask": PICTURE, "prompt": "a hat"}
    assert (await read_media("transcription", {"file": "a.mp3"}, reader))["file"].content_type == "audio/mpeg"


@pytest.mark.parametrize(
    ("task", "inputs", "read"),
    [
        ("image-classification", "cat.png", PICTURE),
        ("image-classification", TEXT, Media(PNG, "file.png", "image/png")),
        ("image-classification", ["cat.png", "cat.png"], [PICTURE, PICTURE]),
        ("visual-question-answering", {"image": "cat.png", "question": "?"}, {"image": PICTURE, "question": "?"}),
    ],
)
async def test_hugging_faces_inputs(reader: MediaReader, task: str, inputs: Any, read: Any) -> None:
    assert (await read_media(task, {"inputs": inputs}, reader))["inputs"] == read


async def test_a_refusal_names_the_part() -> None:
    body = chat({"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "/etc/hostname"}})
    with pytest.raises(InvalidRequest, match=r"body\.messages\[1\]\.content\[1\]\.image_url: no files are read"):
        await read_media("chat", body, MediaReader(INLINE_ONLY))


def test_a_plain_chat_is_not_looked_at() -> None:
    assert not may_hold_media("chat", {"messages": [{"role": "user", "content": "hi"}]})
    assert not may_hold_media("response", {"input": "hi"})
    assert not may_hold_media("embedding", {"input": ["hi"]})
    assert may_hold_media("chat", chat({"type": "text", "text": "hi"}))
    assert may_hold_media("transcription", {"file": "a.wav"})
