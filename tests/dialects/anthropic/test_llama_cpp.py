"""llama.cpp's own server, which speaks Anthropic's wire, asked through the whole engine."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engine import Chunk, Engine, Request
from engine.cli import main
from engine.dialects.anthropic.client import AnthropicDialect
from tests.servers.scripted import Exchange

FRANCE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 24,
    "temperature": 0,
}
KEY = "sk-ant-0123456789abcdef"


@pytest.fixture
def claude(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The provider claude at another address, with a key of its own."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

    def at(url: str, *overrides: str) -> Engine:
        return Engine.compose(["provider=claude", f"provider.base_url={url}", "policy.retry.max_retries=0", *overrides])

    return at


@pytest.mark.slow
async def test_llama_cpp_answers(claude: Any, llama_cpp_url: str) -> None:
    async with claude(llama_cpp_url.removesuffix("/v1")) as engine:
        result = await engine.submit(Request("chat", FRANCE))
    assert result.error is None
    choice = result.body["choices"][0]
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    assert result.usage.input_tokens > 10
    assert result.usage.output_tokens > 2


@pytest.mark.slow
async def test_llama_cpp_streams_the_same_answer(claude: Any, llama_cpp_url: str) -> None:
    async with claude(llama_cpp_url.removesuffix("/v1")) as engine:
        whole = await engine.submit(Request("chat", FRANCE))
        chunks: list[Chunk] = [chunk async for chunk in engine.stream(Request("chat", FRANCE))]
    said = [each.body["choices"][0] for each in chunks if each.body["choices"]]
    assert (
        "".join(choice["delta"].get("content") or "" for choice in said)
        == (whole.body["choices"][0]["message"]["content"])
    )
    assert said[-1]["finish_reason"] == whole.body["choices"][0]["finish_reason"]
    assert chunks[-1].usage.output_tokens == whole.usage.output_tokens


@pytest.mark.slow
async def test_llama_cpp_stops_at_a_sequence(claude: Any, llama_cpp_url: str) -> None:
    async with claude(llama_cpp_url.removesuffix("/v1")) as engine:
        result = await engine.submit(Request("chat", {**FRANCE, "stop": [" is"]}))
    choice = result.body["choices"][0]
    assert (choice["finish_reason"], " is" in choice["message"]["content"]) == ("stop", False)


@pytest.mark.slow
async def test_llama_cpp_says_that_a_prompt_is_too_long(claude: Any, llama_cpp_url: str) -> None:
    body = {**FRANCE, "messages": [{"role": "user", "content": "hi " * 2000}]}
    async with claude(llama_cpp_url.removesuffix("/v1")) as engine:
        result = await engine.submit(Request("chat", body))
    assert result.error.kind == "too_long"


@pytest.mark.slow
async def test_llama_cpp_counts_tokens(llama_cpp_url: str) -> None:
    dialect = AnthropicDialect()
    call = dialect.count_tokens(FRANCE, model="m")
    async with httpx.AsyncClient(trust_env=False) as client:
        url = llama_cpp_url.removesuffix("/v1") + call.path
        reply = await client.post(url, content=call.content, headers=dialect.constant_headers(False))
    assert 15 < dialect.token_count(reply.status_code, reply.headers, reply.content) < 40


@pytest.mark.slow
def test_llama_cpp_lists_its_model_to_a_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], llama_cpp_url: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    # Its makers' own variable, which has no version in its path.
    monkeypatch.setenv("ANTHROPIC_BASE_URL", llama_cpp_url.removesuffix("/v1"))
    assert main(["check", "provider=anthropic"]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 keys work" in said
    assert "does not list claude-haiku-5-5 (1 model)" in said


async def test_the_key_goes_only_into_its_header_and_an_echo_of_it_is_masked(claude: Any, serve: Any) -> None:
    async def echo(exchange: Exchange) -> None:
        error = {"type": "authentication_error", "message": f"invalid x-api-key: {exchange.headers['x-api-key']}"}
        await exchange.reply(401, {"type": "error", "error": error}, {"request-id": KEY})

    server = await serve(echo)
    async with claude(server.url) as engine:
        result = await engine.submit(Request("chat", {"messages": FRANCE["messages"]}))
    sent = server.exchanges[0]
    assert (sent.path, sent.headers["x-api-key"]) == ("/v1/messages", KEY)
    assert sent.headers["anthropic-version"] == "2026-10-21"
    assert KEY not in sent.body.decode()
    assert result.error.kind == "auth"
    assert KEY not in str(result.error.as_dict()) + str(result.engine.as_dict())


async def test_nothing_of_the_engine_reaches_the_wire(claude: Any, serve: Any) -> None:
    async def answer(exchange: Exchange) -> None:
        message = {"id": "msg_1", "model": "m", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"}
        await exchange.reply(200, message)

    server = await serve(answer)
    request = Request(
        "chat", {"messages": FRANCE["messages"]}, priority="high", deadline_s=9, metadata={"row": "canary"}
    )
    async with claude(server.url) as engine:
        result = await engine.submit(request)
    assert result.error is None
    assert set(server.exchanges[0].json) == {"model", "max_tokens", "system", "messages"}
    assert "canary" not in f"{server.exchanges[0].headers}{server.exchanges[0].body!r}"
