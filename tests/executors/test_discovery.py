"""What servers say of themselves, and what it changes: over real sockets, through the whole chain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from engine import Engine, Request
from engine.core.errors import SetupError, TooLong
from engine.executors.services import Services
from tests.servers.scripted import Exchange, ScriptedServer

pytestmark = pytest.mark.slow
Serve = Callable[..., Awaitable[ScriptedServer]]
INFO = {
    "model_id": "m", "model_type": {"embedding": {"pooling": "cls"}}, "max_input_length": 8,
    "max_client_batch_size": 3, "auto_truncate": False, "version": "1.6.0",
}  # fmt: skip


def engine(provider: str, url: str, *words: str, told: list[str] | None = None) -> Engine:
    from engine.config.compose import compose

    words = (f"provider={provider}", f"provider.base_url={url}", "model=remote", "model.name=m", *words)
    services = Services(notify=told.append if told is not None else None)
    return Engine(compose([*words, "policy=off"]).spec, services=services)


def paths(server: ScriptedServer) -> list[str]:
    return [exchange.path for exchange in server.exchanges]


def tei(info: object = INFO, sizes: list[int] | None = None) -> Callable[[Exchange], Awaitable[None]]:
    """A server that refuses what its limits forbid, in TEI's words (router/src/http/server.rs)."""

    async def script(exchange: Exchange) -> None:
        if exchange.path == "/info":
            await exchange.reply(200 if info else 404, info or b"")
            return
        texts: Any = exchange.json["input"]
        if sizes is not None:
            sizes.append(len(texts))
        if len(texts) > 3:
            said = f"batch size {len(texts)} > maximum allowed batch size 3"
            await exchange.reply(422, {"message": said, "type": "Validation", "code": 422})
            return
        data = [{"object": "embedding", "index": at, "embedding": [float(text)]} for at, text in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        await exchange.reply(200, {"object": "list", "data": data, "model": "m", "usage": usage})

    return script


async def test_a_request_with_more_texts_than_the_server_takes_becomes_several_calls(serve: Serve) -> None:
    sizes: list[int] = []
    server = await serve(tei(sizes=sizes))
    async with engine("tei", server.url) as own:
        result = await own.submit(Request("embedding", {"input": [str(number) for number in range(8)]}))
    assert result.ok
    assert result.body is not None
    assert [each["embedding"] for each in result.body["data"]] == [[float(number)] for number in range(8)]
    assert [each["index"] for each in result.body["data"]] == list(range(8))
    assert result.usage is not None
    assert result.usage.input_tokens == 8
    assert (sizes, paths(server).count("/info")) == ([3, 3, 2], 1)
    assert len(result.engine.attempts) == 1


async def test_a_batch_holds_no_more_texts_than_the_server_takes(serve: Serve) -> None:
    sizes: list[int] = []
    server = await serve(tei(sizes=sizes))
    async with engine("tei", server.url, "policy/batch=default", "policy.batch.max_wait_s=0.2") as own:
        results = await asyncio.gather(
            *(own.submit(Request("embedding", {"input": [str(number)] * 2})) for number in range(3))
        )
    assert all(result.ok for result in results)
    assert max(sizes) <= 3


async def test_a_text_that_the_server_would_refuse_is_not_sent(serve: Serve) -> None:
    sizes: list[int] = []
    server = await serve(tei(sizes=sizes))
    async with engine("tei", server.url, "policy/preflight=default") as own:
        result = await own.submit(Request("embedding", {"input": "9" * 1000}))
    assert isinstance(result.error, TooLong)
    assert "room for 8 (as its server says)" in str(result.error)
    assert sizes == []


async def test_a_task_that_the_model_can_not_do_is_not_sent(serve: Serve) -> None:
    server = await serve(tei())
    async with engine("tei", server.url, "policy/preflight=default") as own:
        result = await own.submit(Request("rerank", {"query": "q", "documents": ["a"]}))
    assert result.error is not None
    assert "is not for rerank, as its server says; it does: embedding, sentence-similarity" in str(result.error)
    assert paths(server) == ["/info"]


async def test_a_server_that_does_not_describe_itself_is_asked_as_it_is(serve: Serve) -> None:
    server = await serve(tei(info=None))
    async with engine("tei", server.url) as own:
        assert (await own.submit(Request("embedding", {"input": ["1"]}))).ok
        assert (await own.submit(Request("embedding", {"input": ["2"]}))).ok
    assert paths(server) == ["/info", "/v1/embeddings", "/v1/embeddings"]


async def test_a_server_that_starts_later_is_asked_by_the_first_request(serve: Serve) -> None:
    server = await serve(tei())
    own = engine("tei", "http://127.0.0.1:1")
    async with own:
        assert (await own.submit(Request("embedding", {"input": ["1"]}))).error is not None
    async with engine("tei", server.url) as own:
        assert (await own.submit(Request("embedding", {"input": ["1"] * 4}))).ok


async def test_tgi_says_how_long_a_prompt_and_an_answer_may_be(serve: Serve) -> None:
    pages = {
        "/info": {"model_id": "m", "max_input_tokens": 8, "max_total_tokens": 20, "version": "3.3.0"},
        "/metrics": b"# TYPE tgi_queue_size gauge\ntgi_queue_size 4\n",
        "/health": b"",
    }

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200 if exchange.path in pages else 500, pages.get(exchange.path, b""))

    server = await serve(script)
    async with engine("tgi", server.url, "policy/preflight=default") as own:
        long = await own.submit(Request("completion", {"prompt": "x" * 1000}))
        much = await own.submit(Request("completion", {"prompt": "x", "max_tokens": 21}))
        checked = await own.pipeline.target_chains[0].executor.check()
    assert "room for 8 (as its server says)" in str(long.error)
    assert "21 is more than the 20 tokens" in str(much.error)
    assert "TGI 3.3.0, 8 tokens a prompt, 20 tokens with the answer, healthy, 4 requests wait" in checked


SHOWN = {
    "details": {"family": "llama"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 16},
    "capabilities": ["completion", "tools"],
}
"""As Ollama's docs/api.md, "Show Model Information", shortened."""


def ollama(pull: Sequence[bytes] = (), present: bool = True) -> Callable[[Exchange], Awaitable[None]]:
    there = [present]

    async def script(exchange: Exchange) -> None:
        if exchange.path == "/api/version":
            await exchange.reply(200, {"version": "0.12.6"})
        elif exchange.path == "/api/show":
            await exchange.reply(200, SHOWN) if there[0] else await exchange.reply(
                404, {"error": "model 'm' not found"}
            )
        elif exchange.path == "/api/pull":
            await exchange.start({"content-type": "application/x-ndjson"})
            for line in pull:
                await exchange.piece(line + b"\n")
            await exchange.end()
            there[0] = any(b"success" in line for line in pull)
        else:
            message = {"role": "assistant", "content": "hi"}
            await exchange.reply(200, {"model": "m", "message": message, "done": True, "done_reason": "stop"})

    return script


async def test_ollama_says_what_a_model_holds_and_can_do(serve: Serve) -> None:
    server = await serve(ollama())
    async with engine("ollama", server.url, "policy/preflight=default") as own:
        long = await own.submit(Request("chat", {"messages": [{"role": "user", "content": "x" * 1000}]}))
        other = await own.submit(Request("embedding", {"input": "x"}))
    assert "room for 16 (as its server says)" in str(long.error)
    assert "is not for embedding, as its server says; it does: chat, completion" in str(other.error)


STEPS = [
    b'{"status":"pulling manifest"}',
    *(
        b'{"status":"pulling 5ee4f07cdb9b","digest":"sha256:5ee4","total":2000000,"completed":%d}' % done
        for done in range(0, 2_000_001, 50_000)
    ),
    b'{"status":"verifying sha256 digest"}',
    b'{"status":"success"}',
]


async def test_a_missing_model_is_pulled_with_its_progress(serve: Serve) -> None:
    told: list[str] = []
    server = await serve(ollama(STEPS, present=False))
    async with engine("ollama", server.url, "provider.pull=missing", told=told) as own:
        assert (await own.submit(Request("chat", {"messages": [{"role": "user", "content": "x"}]}))).ok
    assert told[0] == "pulling m"
    assert told[-1] == "pulled m"
    assert "  m: pulling 5ee4f07cdb9b, 50 % of 2.0 MB" in told
    assert len(told) < 20
    assert paths(server).count("/api/pull") == 1


async def test_a_model_that_is_there_is_not_pulled(serve: Serve) -> None:
    server = await serve(ollama())
    async with engine("ollama", server.url, "provider.pull=missing"):
        pass
    assert "/api/pull" not in paths(server)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([b'{"status":"pulling manifest"}', b'{"error":"pull model manifest: file does not exist"}'], "does not exist"),
        ([b'{"status":"pulling manifest"}'], "stopped in the middle; start again"),
        ([b"<html>"], "not a JSON object"),
    ],
)
async def test_a_pull_that_fails_says_why_and_what_to_do(serve: Serve, steps: list[bytes], words: str) -> None:
    server = await serve(ollama(steps, present=False))
    with pytest.raises(SetupError, match=words) as caught:
        async with engine("ollama", server.url, "provider.pull=missing"):
            pass
    assert str(caught.value).startswith("provider.pull: m")


async def test_a_missing_model_that_is_not_to_be_pulled_is_named_by_the_check(serve: Serve) -> None:
    server = await serve(ollama(present=False))
    own = engine("ollama", server.url)
    async with own:
        found = own.pipeline.target_chains[0].executor.server_info.found
    assert "get it with `ollama pull m`, or set provider.pull=missing" in found


def test_only_a_wire_that_can_pull_takes_the_knob() -> None:
    with pytest.raises(Exception, match=r"provider\.pull: a server of the dialect 'tei' fetches no models"):
        engine("tei", "http://127.0.0.1:1", "provider.pull=missing")
