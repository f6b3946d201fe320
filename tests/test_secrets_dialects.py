"""The canary over every wire: servers that repeat the key in answers, streams, errors and headers, however spelled.

The replies are made by our own server dialects, so that each is a valid one of its wire.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from engine import Engine, Request
from engine.cli import main
from engine.core.errors import AuthFailed, InferenceError, InvalidRequest, ServerFailed
from engine.core.request import ENDPOINTS
from engine.core.stream import Chunk
from engine.dialects.server import ClientCall
from tests.servers.dialect_server import DialectServer
from tests.servers.replies import chunk, completion

ROOT = Path(__file__).resolve().parent.parent
KEY = "canary0f9b7kq2x/+zzq7"
SPELLED = (KEY, quote(KEY, safe=""), KEY.replace("/", "\\/"), b64encode(b"Bearer " + KEY.encode()).decode())
ECHO = "You sent " + " and ".join(SPELLED)
NEEDLES = [KEY, quote(KEY, safe=""), KEY.replace("/", "\\/"), b64encode(b"Bearer " + KEY.encode()).decode()[11:-4]]
WIRES = {
    # dialect: provider, path of base_url, variable of the key, task
    "openai": ("openai", "/v1", "OPENAI_API_KEY", "chat"),
    "anthropic": ("claude", "", "ANTHROPIC_API_KEY", "chat"),
    "gemini": ("gemini", "/v1beta", "GEMINI_API_KEY", "chat"),
    "ollama": ("ollama", "", "OLLAMA_API_KEY", "chat"),
    "tgi": ("hf_tgi", "", "HF_TOKEN", "completion"),
    "tei": ("hf_tei", "", "HF_TOKEN", "embedding"),
    "kserve": ("kserve", "", "KSERVE_API_KEY", "embedding"),
    "opea": ("opea", "/v1", "OPEA_API_KEY", "chat"),
}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completion": {"prompt": "hi"},
    "embedding": {"input": ["hi"], "normalize": True},  # which TEI takes at its own path only
}


def reply_of(task: str) -> dict[str, Any]:
    if task == "embedding":
        item = {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}
        return {"object": "list", "model": KEY, "data": [item], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    body = completion(ECHO, model=KEY, id=KEY)
    if task == "completion":
        body["choices"] = [{"index": 0, "text": ECHO, "finish_reason": "stop"}]
    return body


class EchoServer(DialectServer):
    """Answers, refuses, fails, and knows the key nowhere else than in what it says."""

    def __init__(self, dialect: str) -> None:
        super().__init__(dialect, self._say, models=["m", KEY])
        self.turns: Iterator[str] = iter(())

    async def _say(self, call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
        turn = next(self.turns, "answer")
        if turn == "refuse":
            raise InvalidRequest(ECHO, status=400, code=KEY)
        if turn == "deny":
            raise AuthFailed(ECHO, status=401, code=KEY)
        if turn == "break":
            raise ServerFailed(ECHO, status=500)
        if not call.stream:
            return reply_of(call.task)
        end: Chunk | InferenceError = ServerFailed(ECHO) if turn == "tear" else Chunk(_piece(call.task, None, "stop"))
        return [Chunk(_piece(call.task, ECHO, None)), end]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        response = await super()._serve(request)
        if not response.prepared:
            for name in ("x-request-id", "request-id", "x-compute-type", "retry-after", "location"):
                response.headers[name] = f"id-{KEY}"
        return response


def _piece(task: str, text: str | None, reason: str | None) -> dict[str, Any]:
    body = chunk(text, reason, model=KEY)
    if task == "completion":
        body["choices"] = [{"index": 0, "text": text or "", "finish_reason": reason}]
    return body


def words_of(dialect: str, server: DialectServer) -> list[str]:
    provider, path, _, _ = WIRES[dialect]
    return [
        f"provider={provider}", f"provider.base_url={server.url}{path}", "model=remote", "model.name=m",
        "provider.transport.trust_env=false", "provider.drop_unsupported=true",
        "policy.retry.max_retries=0", "policy.queue.concurrency=1",
    ]  # fmt: skip


def assert_clean(text: str, where: str) -> None:
    for needle in NEEDLES:
        assert needle not in text, f"{where} shows the key as {needle}: {text[:2000]}"


def left_clean(folder: Path) -> list[dict[str, Any]]:
    """Asserts that no file below `folder` shows the key. The rows of the run's results."""
    for path in (file for file in folder.rglob("*") if file.is_file()):
        assert_clean(path.read_bytes().decode("latin-1"), path.name)
    assert (folder / "engine.prom").exists()
    return [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", WIRES)
async def test_a_key_is_in_nothing_that_a_run_leaves_over_any_wire(dialect: str, tmp_path: Path) -> None:
    task, variable = WIRES[dialect][3], WIRES[dialect][2]
    rows = [{"custom_id": f"r{n}", "method": "POST", "url": ENDPOINTS[task], "body": BODIES[task]} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    async with EchoServer(dialect) as server:
        server.turns = iter(["answer", "refuse", "break"])
        environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environ |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), variable: KEY, "NO_PROXY": "*"}
        environ |= {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine", *words_of(dialect, server),
            "workload=jsonl", "workload.path=rows.jsonl", "output.dir=run", "telemetry.log_level=debug",
            "telemetry.otel=true", "telemetry.otel_content=on", "telemetry.prometheus_file=engine.prom", "--debug",
            cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = b"".join(await asyncio.wait_for(process.communicate(), 60)).decode()
    assert process.returncode == 3, said
    assert_clean(said, "the command line")
    assert "gen_ai." in said
    results = left_clean(tmp_path)
    assert results[0]["error"] is None, results[0]
    assert (results[1]["error"] or {})["kind"] == "invalid_request"
    assert "***" in json.dumps(results[1])


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("dialect", [name for name, wire in WIRES.items() if wire[3] in ("chat", "completion")])
async def test_a_key_is_in_no_chunk_and_no_error_of_a_stream(
    dialect: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, variable, task = WIRES[dialect]
    monkeypatch.setenv(variable, KEY)
    async with EchoServer(dialect) as server:
        words = [*words_of(dialect, server), f"provider.transport.kind={transport}"]
        async with Engine.compose(words) as engine:
            for turn in ("answer", "tear", "refuse", "break", "deny"):
                server.turns = iter([turn])
                shown: list[str] = []
                try:
                    async for piece in engine.stream(Request(task, {**BODIES[task], "stream": True})):
                        shown.append(f"{piece!r} {piece.body}")
                except InferenceError as error:
                    shown.append("".join(traceback.format_exception(error)) + f"{error!r} {error.as_dict()}")
                assert shown
                assert_clean("\n".join(shown), f"{dialect}'s {turn}")
            assert_clean(f"{engine.report()} {engine.describe()} {vars(engine.spec)}", "the report")


@pytest.mark.slow
@pytest.mark.parametrize("dialect", WIRES)
async def test_check_and_plan_show_no_key_over_any_wire(
    dialect: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WIRES[dialect][2], KEY)
    async with EchoServer(dialect) as server:
        for verb in (["check"], ["check", "--json"], ["plan"], ["plan", "--json"]):
            await asyncio.to_thread(main, [verb[0], *words_of(dialect, server), *verb[1:]])
    said = capsys.readouterr()
    assert WIRES[dialect][2] in said.out
    assert_clean(said.out + said.err, "check")
