"""Chat about pictures, with a tiny LLaVA."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from engine.core.media_access import MediaAccess
from engine.runtimes.generation.vision_chat import is_visual
from tests.runtimes.pipelines.test_pipelines import Folder, picture, spec

pytestmark = pytest.mark.slow
FLOAT32 = "hardware.dtype=float32"


def about(image: Any, text: str = "hello world", **told: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 6, "temperature": 0, **told}


def data_url(red: int) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(red)).decode()


async def test_a_picture_is_part_of_the_prompt_and_of_the_answer(folder: Folder) -> None:
    async with Engine(spec(folder("chat"), "chat", FLOAT32)) as engine:
        seen = await engine.submit(Request("chat", about(data_url(250))))
        plain = await engine.submit(
            Request("chat", {**about(""), "messages": [{"role": "user", "content": "hello world"}]})
        )
    assert seen.body is not None, seen.error
    assert plain.body is not None, plain.error
    assert seen.body["usage"]["prompt_tokens"] > plain.body["usage"]["prompt_tokens"] + 10
    assert seen.body["choices"][0]["message"]["content"]
    assert seen.body["choices"][0]["finish_reason"] in ("length", "stop")


async def test_a_stream_about_a_picture_has_the_same_text(folder: Folder) -> None:
    async with Engine(spec(folder("chat"), "chat", FLOAT32)) as engine:
        whole = await engine.submit(Request("chat", about(data_url(250))))
        chunks = [chunk.body async for chunk in engine.stream(Request("chat", about(data_url(250))))]
    assert whole.body is not None
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert text == whole.body["choices"][0]["message"]["content"]


async def test_a_picture_is_read_from_a_file_below_the_root_only(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "red.png").write_bytes(picture())
    access = MediaAccess(tmp_path / "in")
    async with Engine(spec(folder("chat"), "chat", FLOAT32)) as engine:
        named = await engine.submit(Request("chat", about("red.png"), media=access))
        inline = await engine.submit(Request("chat", about(data_url(200))))
        outside = await engine.submit(Request("chat", about("../out.png"), media=access))
        broken = await engine.submit(Request("chat", about("data:image/png;base64,AAAA")))
    assert named.body is not None, named.error
    assert inline.body is not None
    assert named.body["choices"] == inline.body["choices"]
    assert outside.error is not None
    assert "body.messages[0].content[0].image_url" in outside.error.message
    assert broken.error is not None
    assert broken.error.kind == "invalid_request"
    assert "body.messages[0].content[0].image_url" in broken.error.message


async def test_only_a_model_that_reads_pictures_is_taken_for_one(folder: Folder) -> None:
    assert is_visual(folder("chat"))
    assert not is_visual(folder("fill-mask"))


async def test_an_answer_about_a_picture_is_the_same_on_openvino(folder: Folder) -> None:
    pytest.importorskip("openvino_genai")
    asked = [Request("chat", about(data_url(red))) for red in (10, 250)]
    async with Engine(spec(folder("chat"), "chat", FLOAT32)) as engine:
        wanted = [await engine.submit(request) for request in asked]
    async with Engine(spec(folder("chat"), "chat", "hardware=openvino", "hardware.precision=f32")) as engine:
        found = [await engine.submit(request) for request in asked]
    for one, other in zip(wanted, found, strict=True):
        assert one.body is not None, one.error
        assert other.body is not None, other.error
        assert one.body["choices"] == other.body["choices"]
        assert one.body["usage"] == other.body["usage"]
