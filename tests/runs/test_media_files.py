"""A run whose rows name files and whose results are pictures and sounds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.config.compose import compose
from engine.core.media_access import Media
from engine.dialects.server import ClientCall
from engine.runs import Summary, execute, open_run
from engine.runs.media_files import MediaFiles
from engine.workloads.open import open_source
from tests.runs.checks import lines_of
from tests.servers.dialect_server import DialectServer

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def answer(call: ClientCall) -> dict[str, Any]:
    if call.task == "speech":
        return {"audio": {"data": encoded(WAV)}}
    if call.task in ("image", "image-edit"):
        return {"created": 1, "output_format": "png", "data": [{"b64_json": encoded(PNG)}, {"b64_json": encoded(PNG)}]}
    if call.task == "response":
        said = {"type": "message", "content": [{"type": "output_text", "text": "a response"}]}
        return {"id": "resp_1", "object": "response", "status": "completed", "output": [{"type": "reasoning"}, said]}
    if call.task == "chat":
        sound = {"id": "audio_1", "data": encoded(WAV), "transcript": "hi"}
        return {"choices": [{"index": 0, "message": {"role": "assistant", "audio": sound}, "finish_reason": "stop"}]}
    heard = call.body["file"]
    return {"text": f"{heard.filename} of {len(heard.data)} bytes"}


ROWS: list[dict[str, Any]] = [
    {"custom_id": "say", "task": "speech", "input": "hi", "voice": "v", "response_format": "wav"},
    {"custom_id": "draw", "url": "/v1/images/generations", "body": {"prompt": "a cat"}},
    {"custom_id": "hear", "file": "sounds/clip.wav", "language": "en"},
    {"custom_id": "edit", "image": "cat.png", "prompt": "a hat"},
    {"custom_id": "talk", "prompt": "hi", "modalities": ["text", "audio"]},
    {"custom_id": "gone", "file": "sounds/gone.wav"},
    {"custom_id": "respond", "task": "response", "prompt": "hi"},
]


async def run(tmp_path: Path, media: str) -> tuple[Summary, list[dict[str, Any]], list[ClientCall]]:
    folder = tmp_path / "rows"
    (folder / "sounds").mkdir(parents=True)
    (folder / "sounds" / "clip.wav").write_bytes(WAV)
    (folder / "cat.png").write_bytes(PNG)
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    async with DialectServer("openai", answer) as server:
        spec = compose(
            [
                "provider=llama_cpp", f"provider.base_url={server.url}/v1", "model=remote", "model.name=m",
                "workload=jsonl", f"workload.path={folder / 'in.jsonl'}", f"output.root={tmp_path / 'out'}",
                f"output.media={media}",
            ]
        ).spec  # fmt: skip
        source = open_source(spec.workload, spec.model.tasks)
        async with Engine(spec) as engine:
            with open_run(spec, source) as directory:
                summary = await execute(engine, spec, directory, source=source)
        return summary, lines_of(summary.path / "results.jsonl"), server.calls


@pytest.mark.slow
async def test_pictures_and_sounds_become_files_of_the_run(tmp_path: Path) -> None:
    summary, lines, calls = await run(tmp_path, "files")
    assert (summary.ok, summary.failed) == (6, 1)
    bodies = [line["response"]["body"] for line in lines[:5]]
    assert bodies[0]["audio"] == {"format": "wav", "content_type": "audio/wav", "path": "media/000001-1.wav"}
    assert bodies[1]["data"] == [{"path": "media/000002-1.png"}, {"path": "media/000002-2.png"}]
    assert bodies[2]["text"] == f"clip.wav of {len(WAV)} bytes"
    assert bodies[3]["data"][0] == {"path": "media/000004-1.png"}
    assert bodies[4]["choices"][0]["message"]["audio"]["path"] == "media/000005-1.wav"
    files = {path.name: path.read_bytes() for path in (summary.path / "media").iterdir()}
    assert {name: len(data) for name, data in files.items()} == {
        "000001-1.wav": len(WAV), "000002-1.png": len(PNG), "000002-2.png": len(PNG),
        "000004-1.png": len(PNG), "000004-2.png": len(PNG), "000005-1.wav": len(WAV),
    }  # fmt: skip
    assert {call.task for call in calls} == {"speech", "image", "transcription", "image-edit", "chat", "response"}
    edited = next(call for call in calls if call.task == "image-edit").body
    assert edited["image"] == Media(PNG, "cat.png", "image/png")


@pytest.mark.slow
async def test_the_report_says_what_came(tmp_path: Path) -> None:
    summary, _, _ = await run(tmp_path, "inline")
    report = (summary.path / "report.md").read_text()
    for answer in ("sound (wav)", "2 pictures", f"clip.wav of {len(WAV)} bytes", "a response"):
        assert answer in report
    assert encoded(PNG)[:20] not in report


@pytest.mark.slow
async def test_they_stay_in_the_results_unless_files_are_asked_for(tmp_path: Path) -> None:
    summary, lines, _ = await run(tmp_path, "inline")
    assert lines[0]["response"]["body"]["audio"]["data"] == encoded(WAV)
    assert lines[1]["response"]["body"]["data"][0]["b64_json"] == encoded(PNG)
    assert not (summary.path / "media").exists()
    failed = lines_of(summary.path / "dead.jsonl")
    assert failed == [ROWS[5]]
    assert "body.file: no file sounds/gone.wav in" in lines[5]["error"]["message"]


def test_a_format_can_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    media = MediaFiles(tmp_path)
    line = json.dumps(
        {"response": {"body": {"audio": {"data": encoded(WAV), "format": "../../x"}}}}, separators=(",", ":")
    )
    put = json.loads(media.put(line.encode(), 0))
    media.close()
    assert put["response"]["body"]["audio"]["path"] == "media/000001-1.bin"
    assert (tmp_path / "media" / "000001-1.bin").read_bytes() == WAV


@pytest.mark.parametrize("several", [False, True])
def test_what_a_task_of_hugging_face_made_becomes_files(several: bool, tmp_path: Path) -> None:
    outputs = [{"image": {"data": encoded(PNG), "format": "png"}}, {"audio": {"data": encoded(WAV), "format": "wav"}}]
    body = {"outputs": outputs if several else outputs[0]}
    media = MediaFiles(tmp_path)
    put = json.loads(media.put(json.dumps({"response": {"body": body}}, separators=(",", ":")).encode(), 0))
    media.close()
    image = {"image": {"format": "png", "path": "media/000001-1.png"}}
    audio = {"audio": {"format": "wav", "path": "media/000001-2.wav"}}
    assert put["response"]["body"]["outputs"] == ([image, audio] if several else image)
    assert (tmp_path / "media" / "000001-1.png").read_bytes() == PNG


@pytest.mark.parametrize(
    "body", [{"audio": {"data": "no base64!"}}, {"data": [{"b64_json": "%"}]}, {"audio": {"data": None}}, {"data": 5}]
)
def test_what_is_no_base64_stays_as_it_came(tmp_path: Path, body: dict[str, Any]) -> None:
    line = json.dumps({"response": {"body": body}}, separators=(",", ":")).encode()
    assert json.loads(MediaFiles(tmp_path).put(line, 0)) == json.loads(line)
    assert not (tmp_path / "media").exists()
