"""Whole calls by the engine, through each provider's options, to a server of the same wire on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine import Engine
from engine.cli import main
from engine.core.errors import InferenceError, Overloaded
from engine.core.request import Request
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.server import ClientCall
from tests.servers.dialect_server import DialectServer

HEAD = {"id": "x", "created": 1704067200, "model": "m"}


async def answer(call: ClientCall) -> dict[str, Any] | Sequence[Chunk | InferenceError]:
    if call.task == "embedding":
        return {"data": [{"index": at, "embedding": [0.5, 0.25]} for at in range(len(call.body["input"]))]}
    if call.task == "rerank":
        return {"results": [{"index": at, "relevance_score": at / 10} for at in range(len(call.body["documents"]))]}
    if call.stream:
        pieces = [{"index": 0, "delta": {"content": text}, "text": text} for text in ("Ray", "leigh")]
        last = {"index": 0, "delta": {}, "text": "", "finish_reason": "length"}
        return [
            *(Chunk({**HEAD, "choices": [piece]}) for piece in pieces),
            Chunk({**HEAD, "choices": [last]}, Usage(3, 2)),
        ]
    choice = {"index": 0, "message": {"content": "Rayleigh"}, "text": "Rayleigh", "finish_reason": "stop"}
    return {**HEAD, "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def engine(provider: str, server: DialectServer) -> Engine:
    words = [f"provider={provider}", f"provider.base_url={server.url}", "model=remote", "model.name=m"]
    return Engine.compose([*words, "policy=off"])


BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "why?"}]},
    "completion": {"prompt": "x"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "provider", "task"),
    [
        ("ollama", "ollama", "chat"),
        ("ollama", "ollama", "completion"),
        ("tgi", "hf_tgi", "completion"),
        ("tgi", "tgi", "completion"),
    ],
)
async def test_an_answer_comes_whole_and_streamed(dialect: str, provider: str, task: str) -> None:
    async with DialectServer(dialect, answer) as server, engine(provider, server) as mine:
        whole = await mine.submit(Request(task, BODIES[task]))
        assert whole.body is not None
        choice = whole.body["choices"][0]
        assert (choice["message"]["content"] if task == "chat" else choice["text"]) == "Rayleigh"
        assert whole.body["model"] == "m"
        chunks = [chunk async for chunk in mine.stream(Request(task, BODIES[task]))]
        choices = [chunk.body["choices"][0] for chunk in chunks]
        parts = [choice["delta"].get("content", "") if task == "chat" else choice["text"] for choice in choices]
        assert "".join(parts) == "Rayleigh"
        assert (choices[-1]["finish_reason"], chunks[-1].usage) == ("length", Usage(3, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "flags"), [("ollama", {}), ("hf_tei", {"normalize": False})])
async def test_vectors_are_packed_where_the_wire_knows_only_numbers(provider: str, flags: dict[str, Any]) -> None:
    async with (
        DialectServer(provider.removeprefix("hf_"), answer) as server,
        engine(provider, server) as mine,
    ):
        result = await mine.submit(Request("embedding", {"input": ["a", "b"], "encoding_format": "base64", **flags}))
        assert result.body is not None
        assert [item["embedding"] for item in result.body["data"]] == ["AAAAPwAAgD4="] * 2


@pytest.mark.slow
async def test_a_ranking_is_cut_to_its_best() -> None:
    body = {"query": "q", "documents": ["a", "b", "c"], "top_n": 2, "return_documents": True}
    async with DialectServer("tei", answer) as server, engine("tei", server) as mine:
        result = await mine.submit(Request("rerank", body))
        assert result.body is not None
        assert [(each["index"], each["document"]["text"]) for each in result.body["results"]] == [(2, "c"), (1, "b")]
        assert result.body["model"] == "m"


@pytest.mark.slow
async def test_a_refusal_is_the_results_error() -> None:
    async def refuse(call: ClientCall) -> dict[str, Any]:
        raise Overloaded("server busy, please try again", retry_after_s=2)

    async with DialectServer("ollama", refuse) as server, engine("ollama", server) as mine:
        result = await mine.submit(Request("chat", BODIES["chat"]))
        assert result.error is not None
        assert (result.error.kind, result.error.retry_after_s) == ("overloaded", 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("listed", ["m", "m:latest"])
async def test_a_check_finds_the_model(listed: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with DialectServer("ollama", answer, models=[listed, "n"]) as server:
        words = ["check", "provider=ollama", f"provider.base_url={server.url}", "model=remote", "model.name=m"]
        assert await asyncio.to_thread(main, words) == 0
    assert "has m (2 models)" in capsys.readouterr().out
