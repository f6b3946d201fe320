"""The responses of llama.cpp's own server: another's idea of OpenAI's wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine import Engine, Request
from engine.config.compose import compose

pytestmark = pytest.mark.slow

BODY = {"input": "What is the capital of France?", "max_output_tokens": 6, "temperature": 0}


@pytest.fixture
async def engine(llama_cpp_url: str) -> AsyncIterator[Engine]:
    overrides = ["provider=llama_cpp", f"provider.base_url={llama_cpp_url}", "model=remote", "model.name=smollm2"]
    async with Engine(compose(overrides).spec) as made:
        yield made


async def test_a_response(engine: Engine) -> None:
    result = await engine.submit(Request("response", BODY))
    assert result.body is not None
    assert result.body["output"][-1]["content"][0]["text"]
    assert result.usage is not None
    assert result.usage.output_tokens == 6
    assert result.usage.input_tokens > 10


async def test_a_streamed_response_says_the_same_as_a_whole_one(engine: Engine) -> None:
    chunks = [chunk async for chunk in engine.stream(Request("response", BODY))]
    kinds = [chunk.body["type"] for chunk in chunks]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    text = "".join(chunk.body["delta"] for chunk in chunks if chunk.body["type"] == "response.output_text.delta")
    whole = await engine.submit(Request("response", BODY))
    assert whole.body is not None
    assert text == whole.body["output"][-1]["content"][0]["text"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == 6


async def test_messages_instructions_and_their_refusal(engine: Engine) -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Say yes."}]}]
    body = {"input": items, "instructions": "Be brief.", "max_output_tokens": 4}
    assert (await engine.submit(Request("response", body))).ok
    refused = await engine.submit(Request("response", {"input": items, "previous_response_id": "resp_1"}))
    assert refused.error is not None
    assert refused.error.kind == "invalid_request"


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_a_call_right_after_a_stream_needs_one_attempt(llama_cpp_url: str, transport: str) -> None:
    """The server closes a connection after a stream, without saying so."""
    overrides = ["provider=llama_cpp", f"provider.base_url={llama_cpp_url}", "model=remote", "model.name=smollm2"]
    chat = Request("chat", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0})
    options = ["policy=interactive", f"provider.transport.kind={transport}"]
    async with Engine(compose([*overrides, *options]).spec) as engine:
        for _ in range(10):
            assert [chunk async for chunk in engine.stream(chat)]
            result = await engine.submit(chat)
            assert result.ok
            assert [attempt.outcome for attempt in result.engine.attempts] == ["ok"]
