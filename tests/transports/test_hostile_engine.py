"""Hostile servers as a user meets them: through the whole engine, over both transports and every wire."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from engine import Engine, Request, Result
from engine.core.registry import DIALECTS
from tests.servers.replies import completion
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "chat": CHAT,
    "completion": {"prompt": "hi"},
    "embedding": {"input": ["hi"]},
}
ASKED = {"openai": "chat", "anthropic": "chat", "gemini": "chat", "ollama": "chat", "opea": "chat", "tgi": "completion",
         "tei": "embedding", "kserve": "embedding"}  # fmt: skip


@pytest.fixture(params=["aiohttp", "httpx"])
def words(request: pytest.FixtureRequest) -> list[str]:
    return [
        "provider=llama_cpp", "model=remote", "model.name=m", f"provider.transport.kind={request.param}",
        "provider.transport.trust_env=false", "policy.retry.max_retries=0",
    ]  # fmt: skip


async def ask(words: list[str], url: str, task: str = "chat") -> Result:
    async with Engine.compose([*words, f"provider.base_url={url}"]) as engine:
        async with asyncio.timeout(5):
            return await engine.submit(Request(task, BODIES[task]))


def raw(lines: bytes, body: bytes) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: %d\r\n\r\n" % len(body) + body)

    return script


ANSWER = msgspec.json.encode(completion())


@pytest.mark.parametrize(
    "kind", [b"", b"content-type: text/plain\r\n", b"content-type: \xff\xfe\r\n", b"content-type: ;;\r\n"]
)
async def test_an_answer_is_an_answer_whatever_its_content_type(words: list[str], serve: Serve, kind: bytes) -> None:
    result = await ask(words, (await serve(raw(kind, ANSWER))).url)
    assert result.ok, result.error


@pytest.mark.parametrize(
    "body",
    [ANSWER[:-1], b"", b"<html>Log in</html>", b"\xff\xfe\x00", ANSWER.replace(b"Paris", b"\xff\xfe"), b"[" * 50_000],
    ids=["cut", "empty", "page", "binary", "invalid-utf-8", "deep"],
)
async def test_a_body_that_is_no_answer_is_malformed(words: list[str], serve: Serve, body: bytes) -> None:
    result = await ask(words, (await serve(raw(b"content-type: application/json\r\n", body))).url)
    assert result.error is not None
    assert result.error.kind in ("malformed", "truncated")
    json.dumps(result.error.as_dict()).encode()


@pytest.mark.parametrize("value", [b"caf\xe9 \xff", b"tab\there", b"\x1b[31mred", "żółć".encode(), b"x" * 8000])
async def test_a_request_id_of_odd_characters_can_be_written_down(words: list[str], serve: Serve, value: bytes) -> None:
    result = await ask(words, (await serve(raw(b"x-request-id: " + value + b"\r\n", ANSWER))).url)
    if result.ok:
        (attempt,) = result.engine.attempts
        assert attempt.provider_request_id is None or attempt.provider_request_id.isprintable()
        str(attempt.provider_request_id).encode()
    else:
        assert result.error is not None
        assert result.error.kind == "malformed"


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_body_that_drips_is_bounded_by_the_policy(words: list[str], serve: Serve, streamed: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        for _ in itertools.count():
            await asyncio.sleep(0.02)
            await exchange.piece(b" ")

    server = await serve(script)
    limits = ["policy.timeout.attempt_s=0.4", "policy.timeout.first_token_s=0.4"]
    async with Engine.compose([*words, *limits, f"provider.base_url={server.url}"]) as engine:
        async with asyncio.timeout(5):
            if streamed:
                with pytest.raises(Exception, match=r"policy\.timeout\.first_token_s"):
                    [each async for each in engine.stream(Request("chat", CHAT))]
            else:
                result = await engine.submit(Request("chat", CHAT))
                assert result.error is not None
                assert "policy.timeout.attempt_s" in result.error.message
    await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ASKED)
async def test_a_redirect_is_refused_with_the_step_over_every_wire(
    words: list[str], serve: Serve, dialect: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(200, {})

    elsewhere = await serve(answer)

    async def script(exchange: Exchange) -> None:
        await exchange.reply(308, b"", {"location": f"{elsewhere.url}/v1/chat/completions?key=canary"})

    server = await serve(script)
    result = await ask([*words, f"provider.dialect={dialect}"], server.url, ASKED[dialect])
    assert result.error is not None
    assert result.error.kind == "invalid_request"
    assert "provider.base_url" in result.error.message
    assert elsewhere.connections == 0


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ASKED)
async def test_an_endless_body_is_stopped_with_the_knobs_name_over_every_wire(
    words: list[str], serve: Serve, dialect: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start({"content-type": "application/json"})
        while not exchange.left.is_set():
            await exchange.piece(b" " * 8192)

    server = await serve(script)
    limit = ["provider.transport.max_body_bytes=100000"]
    result = await ask([*words, *limit, f"provider.dialect={dialect}"], server.url, ASKED[dialect])
    assert result.error is not None
    assert result.error.kind == "malformed"
    assert "provider.transport.max_body_bytes" in result.error.message


def test_every_wire_over_http_is_asked() -> None:
    assert set(ASKED) | {"kserve_grpc", "predict"} >= set(DIALECTS.kinds())
