"""What the system before this one got wrong. Each flaw has its name here, and stays fixed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine import ConfigError, Engine, InferenceError, Request
from engine.middleware.breaker import State
from tests.servers.replies import chunk, completion, error, usage_chunk
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]


def question(id: str = "r", **fields: object) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": "hi"}]}, id=id, **fields)  # type: ignore[arg-type]


def remote(url: str, *overrides: str) -> Engine:
    words = ["provider=openai", f"provider.base_url={url}", "model=remote", "model.name=m"]
    return Engine.compose([*words, "policy.retry.initial_delay_s=0.001", *overrides])


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests")
    monkeypatch.setenv("OPENAI_API_KEY_1", "another-key-for-tests")


async def good(exchange: Exchange) -> None:
    await exchange.reply(200, completion())


async def test_only_normal_priority_could_be_reached() -> None:
    order: list[str] = []
    async with Engine.compose(
        ["provider=simulated", "policy.queue.concurrency=1", "provider.latency_s=0.005"]
    ) as engine:
        engine.observers.append(lambda request, result: order.append(result.engine.priority))
        names = ["normal", "low", "normal", "high", "low", "high"]
        await asyncio.gather(*(engine.submit(question(priority=name)) for name in names))
    assert order == ["normal", "high", "high", "normal", "low", "low"]


async def test_every_error_was_retried_and_one_bad_request_opened_the_breaker_for_all(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        bad = b"poison" in exchange.body
        await (exchange.reply(400, error("no")) if bad else good(exchange))

    server = await serve(script)
    async with remote(server.url, "policy.breaker.min_calls=2") as engine:
        poison = Request("chat", {"messages": [{"role": "user", "content": "poison"}]})
        for _ in range(10):
            assert not (await engine.submit(poison)).ok
        assert len(server.exchanges) == 10
        assert set(engine.policy.breaker.states.values()) == {"closed"}
        assert (await engine.submit(question())).ok


async def test_a_refused_key_was_retried(serve: Serve) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(401, error("bad key", "invalid_api_key"))

    server = await serve(refuse)
    async with remote(server.url) as engine:
        result = await engine.submit(question())
    assert result.error is not None
    assert result.error.kind == "auth"
    assert len(server.exchanges) == 2  # once with each key


async def test_half_open_let_everyone_in(serve: Serve) -> None:
    down = True

    async def script(exchange: Exchange) -> None:
        if down:
            await exchange.reply(500, error("boom"))
        else:
            await asyncio.sleep(0.05)
            await good(exchange)

    server = await serve(script)
    breaker = ["policy.breaker.min_calls=2", "policy.breaker.open_s=0.05", "policy.breaker.probes=2"]
    async with remote(server.url, "policy/retry=off", "policy.breaker.on_open=fail", *breaker) as engine:
        for _ in range(2):
            await engine.submit(question())
        down = False
        await asyncio.sleep(0.07)
        before = len(server.exchanges)
        await asyncio.gather(*(engine.submit(question(str(n))) for n in range(30)))
        assert len(server.exchanges) - before == 2


async def test_streams_bypassed_queue_breaker_retry_and_statistics_and_lost_their_errors(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        if len(server.exchanges) == 1:
            await exchange.reply(500, error("boom"))
            return
        await exchange.start()
        await exchange.event(chunk("Pa"))
        exchange.cut()

    server = await serve(script)
    async with remote(server.url, "policy/stream=off", "policy.breaker.min_calls=2") as engine:
        with pytest.raises(InferenceError, match="middle of a reply"):
            async for _ in engine.stream(question()):
                assert engine.policy.queue.active == 1
        report = engine.report()
        (circuit,) = engine.resources.items("breaker").values()
    assert report["outcomes"] == {"truncated": 1}
    assert (report["attempts"], report["retries"]) == (2, 1)
    assert circuit.state is State.OPEN


async def test_the_average_latency_was_always_0() -> None:
    async with Engine.compose(["provider=simulated", "provider.latency_s=0.02"]) as engine:
        await engine.submit(question())
        assert 0.02 <= engine.report()["latency_s"]["mean"] < 1.0


async def test_errors_were_counted_twice() -> None:
    words = ["provider=simulated", "provider.failure_rate=1", "provider.failure_kind=invalid_request"]
    async with Engine.compose(words) as engine:
        for _ in range(3):
            await engine.submit(question())
        report = engine.report()
    assert (report["requests"], report["failed"], report["outcomes"]) == (3, 3, {"invalid_request": 3})


async def test_batching_was_never_called(serve: Serve) -> None:
    async def embed(exchange: Exchange) -> None:
        inputs = exchange.json["input"]
        data = [{"object": "embedding", "index": n, "embedding": [float(n)]} for n in range(len(inputs))]  # type: ignore[arg-type]
        await exchange.reply(200, {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 8}})

    server = await serve(embed)
    async with remote(server.url) as engine:
        results = await asyncio.gather(*(engine.submit(Request("embedding", {"input": f"t{n}"})) for n in range(8)))
    assert all(result.ok for result in results)
    assert len(server.exchanges) < 8


async def test_least_loaded_raised_an_attribute_error(serve: Serve) -> None:
    server = await serve(good)
    async with remote(server.url, "policy.route.keys=least_loaded") as engine:
        results = await asyncio.gather(*(engine.submit(question(str(n))) for n in range(4)))
    assert {result.engine.attempts[0].key for result in results} == {"OPENAI_API_KEY", "OPENAI_API_KEY_1"}


async def test_the_in_flight_counter_never_fell_so_that_the_sixth_call_hung() -> None:
    async with Engine.compose(["provider=simulated", "policy.queue.concurrency=5"]) as engine:
        for number in range(20):
            await asyncio.wait_for(engine.submit(question(str(number))), 5)
        assert engine.policy.queue.active == 0


async def test_system_messages_silently_became_user(serve: Serve) -> None:
    server = await serve(good)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    async with remote(server.url) as engine:
        await engine.submit(Request("chat", {"messages": messages}))
    assert server.exchanges[0].json["messages"] == messages


async def test_max_tokens_was_left_out_where_the_api_requires_it() -> None:
    import msgspec

    from engine.core.registry import DIALECTS

    call = DIALECTS.get("anthropic")().encode("chat", question().body, model="claude-x", stream=False)
    assert msgspec.json.decode(call.content)["max_tokens"] > 0


async def test_a_custom_endpoint_url_was_ignored(serve: Serve) -> None:
    server = await serve(good)
    async with remote(f"{server.url}/custom/path") as engine:
        assert (await engine.submit(question())).ok
    assert server.exchanges[0].path == "/custom/path/chat/completions"


async def test_canned_answers_were_labelled_real() -> None:
    async with Engine.compose(["provider=simulated"]) as engine:
        result = await engine.submit(question())
        assert result.body is not None
        assert "[simulated]" in result.body["choices"][0]["message"]["content"]
        with pytest.raises(ConfigError, match="is not part of this engine"):
            engine.endpoint_handler("bert-base-uncased", "chat")


async def test_a_stream_that_works_is_counted_once(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        for body in (chunk("Paris"), chunk(None, "stop"), usage_chunk(), b"[DONE]"):
            await exchange.event(body)
        await exchange.end()

    server = await serve(script)
    async with remote(server.url) as engine:
        _ = [each async for each in engine.stream(question())]
        report = engine.report()
    assert (report["outcomes"], report["tokens"]) == ({"ok": 1}, {"input": 7, "output": 2})
