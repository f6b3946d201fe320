"""What goes wrong at a provider, through the whole engine and real sockets: a primary, a fallback, two retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine import Chunk, Engine, Request
from engine.core.errors import Truncated
from engine.middleware.breaker import State
from tests.servers.replies import chunk, completion, error, usage_chunk
from tests.servers.scripted import Exchange, ScriptedServer

pytestmark = pytest.mark.slow
Serve = Callable[..., Awaitable[ScriptedServer]]
QUICK = [
    "policy.retry.max_retries=2",
    "policy.retry.initial_delay_s=0.01",
    "policy.timeout.attempt_s=0.3",
    "policy.timeout.first_token_s=0.3",
    "policy.timeout.idle_s=0.3",
]


async def good(exchange: Exchange) -> None:
    if not exchange.json.get("stream"):
        await exchange.reply(200, completion())
        return
    await exchange.start()
    for body in (chunk("Pa"), chunk("ris"), chunk(None, "stop"), usage_chunk(), b"[DONE]"):
        await exchange.event(body)
    await exchange.end()


async def throttled(exchange: Exchange) -> None:
    await exchange.reply(429, error("slow down"))


async def unavailable(exchange: Exchange) -> None:
    await exchange.reply(503, error("no capacity"))


async def broken(exchange: Exchange) -> None:
    await exchange.reply(500, error("boom"))


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def silent(exchange: Exchange) -> None:
    await exchange.until_left()


async def late(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.until_left()


async def early_cut(exchange: Exchange) -> None:
    await exchange.start()
    exchange.cut()


async def cut(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(chunk("Pa"))
    exchange.cut()


async def stalled(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(chunk("Pa"))
    await exchange.until_left()


async def garbled(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(chunk("Pa"))
    await exchange.event(b'{"choices": [')
    await exchange.end()


async def unterminated(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(chunk("Paris"))
    await exchange.end()


async def too_long(exchange: Exchange) -> None:
    await exchange.reply(400, error("too many tokens", "context_length_exceeded"))


async def filtered(exchange: Exchange) -> None:
    await exchange.reply(400, error("not allowed", "content_policy_violation"))


async def unauthorised(exchange: Exchange) -> None:
    await exchange.reply(401, error("bad key", "invalid_api_key"))


async def error_in_200(exchange: Exchange) -> None:
    await exchange.reply(200, error("overloaded inside", 503))


def engine(primary: ScriptedServer, fallback: ScriptedServer, *overrides: str) -> Engine:
    target = (
        f'{{provider: {{use: openai, name: second, base_url: "{fallback.url}"}}, model: {{use: remote, name: m2}}}}'
    )
    words = ["provider=openai", f"provider.base_url={primary.url}", "model=remote", "model.name=m1"]
    return Engine.compose([*words, *QUICK, f"fallbacks=[{target}]", *overrides])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-tests")


def question(body: dict[str, Any] | None = None, **fields: Any) -> Request:
    messages = [{"role": "user", "content": "capital of France?"}]
    return Request("chat", {"messages": messages, **(body or {})}, **fields)


def held(running: Engine) -> int:
    """Everything that the stages hold for calls under way."""
    resources = running.resources
    keys = sum(count for ring in resources.items("keys").values() for count in ring.in_flight.values())
    slots = sum(gate.active + gate.waiting for gate in resources.items("queue").values())
    return keys + slots + sum(limit.in_flight for limit in resources.items("concurrency").values())


def then_good(fault: Callable[[Exchange], Awaitable[None]]) -> Callable[[Exchange], Awaitable[None]]:
    """The fault for the first call, good answers after it."""
    calls = 0

    async def script(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        await (fault if calls == 1 else good)(exchange)

    return script


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        (throttled, ["throttled"] * 3),
        (unavailable, ["overloaded"] * 3),
        (broken, ["server"] * 3),
        (silent, ["timeout"] * 3),
        (reset, ["connect"] * 3),
        (error_in_200, ["overloaded"] * 3),
        (unauthorised, ["auth"]),
    ],
)
async def test_a_lasting_failure_ends_at_the_fallback(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]], outcomes: list[str]
) -> None:
    primary, fallback = await serve(fault), await serve(good)
    async with engine(primary, fallback) as running:
        result = await running.submit(question())
    assert result.ok
    assert result.engine.target == "second/m2"
    assert [attempt.outcome for attempt in result.engine.attempts] == [*outcomes, "ok"]
    assert len(primary.exchanges) == len(outcomes)
    assert fallback.exchanges[0].json["model"] == "m2"
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (7, 2)


@pytest.mark.parametrize("fault", [throttled, unavailable, broken, silent, reset])
async def test_a_passing_failure_stays_with_the_primary(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]]
) -> None:
    primary, fallback = await serve(then_good(fault)), await serve(good)
    async with engine(primary, fallback) as running:
        result = await running.submit(question())
    assert result.ok
    assert result.engine.target == "openai/m1"
    assert len(result.engine.attempts) == 2
    assert fallback.exchanges == []


async def test_the_servers_hint_is_waited_out_to_the_end(serve: Serve) -> None:
    async def hinted(exchange: Exchange) -> None:
        await exchange.reply(429, error("slow down"), {"retry-after": "0.5"})

    primary, fallback = await serve(then_good(hinted)), await serve(good)
    async with engine(primary, fallback) as running:
        result = await running.submit(question())
    assert result.engine.target == "openai/m1"
    assert result.engine.attempts[1].started_s >= 0.5


@pytest.mark.parametrize("fault", [throttled, unavailable, broken, silent, reset, late, early_cut])
async def test_a_stream_that_never_began_ends_at_the_fallback(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]]
) -> None:
    primary, fallback = await serve(fault), await serve(good)
    async with engine(primary, fallback) as running:
        chunks = [each async for each in running.stream(question())]
        report = running.report()
    assert "".join(each.body["choices"][0]["delta"].get("content", "") for each in chunks) == "Paris"
    assert len(primary.exchanges) == 3
    assert report["outcomes"] == {"ok": 1}
    assert report["targets"]["second/m2"]["attempt_outcomes"] == {"ok": 1}
    assert report["tokens"] == {"input": 7, "output": 2}


BROKEN = [cut, stalled, garbled, unterminated]


def text_of(chunks: list[Chunk]) -> str:
    """What a caller has in the end: it begins anew where a chunk says so."""
    text = ""
    for each in chunks:
        text = "" if each.restarted else text
        for choice in each.body["choices"]:
            text += choice["delta"].get("content") or ""
    return text


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_stream_that_breaks_after_its_first_chunk_is_never_a_clean_end(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]]
) -> None:
    primary, fallback = await serve(fault), await serve(good)
    async with engine(primary, fallback, "policy/stream=off") as running:
        seen = []
        with pytest.raises(Truncated):
            async for each in running.stream(question()):
                seen.append(each)
        assert len(seen) == 1
        assert running.report()["outcomes"] == {"truncated": 1}
        assert held(running) == 0


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_broken_stream_is_rescued_and_reads_as_one(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]]
) -> None:
    primary, fallback = await serve(fault), await serve(good)
    async with engine(primary, fallback) as running:
        chunks = [each async for each in running.stream(question())]
        report = running.report()
        assert held(running) == 0
    assert text_of(chunks) == "Paris"
    assert not any(each.restarted for each in chunks)
    assert chunks[-1].body["choices"][0]["finish_reason"] == "stop"
    assert len({each.body["id"] for each in chunks}) == 1
    assert report["outcomes"] == {"ok": 1}
    assert report["targets"]["openai/m1"]["attempt_outcomes"] == {"truncated": 1}
    assert report["targets"]["second/m2"]["attempt_outcomes"] == {"ok": 1}


async def other(exchange: Exchange) -> None:
    await exchange.start()
    for body in (chunk("Lyon"), chunk(" it is"), chunk(None, "stop"), usage_chunk(), b"[DONE]"):
        await exchange.event(body)
    await exchange.end()


async def test_a_rescue_with_another_answer_says_that_it_begins_anew(serve: Serve) -> None:
    primary, fallback = await serve(cut), await serve(other)
    async with engine(primary, fallback) as running:
        chunks = [each async for each in running.stream(question())]
    assert text_of(chunks) == "Lyon it is"
    (mark,) = [each for each in chunks if each.restarted]
    assert mark.body["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert mark.body["engine"] == {"rescue": "restarted", "target": "second/m2"}


async def continuing(exchange: Exchange) -> None:
    last = exchange.json["messages"][-1]  # type: ignore[index]
    await exchange.start()
    assert last == {"role": "assistant", "content": "Pa"}
    for body in (chunk("", role="assistant"), chunk("ris"), chunk(None, "stop"), usage_chunk(), b"[DONE]"):
        await exchange.event(body)
    await exchange.end()


PREFILL = (
    'fallbacks=[{{provider: {{use: openai, name: second, base_url: "{url}", prefill: assistant}}, '
    "model: {{use: remote, name: m2}}}}]"
)


async def test_a_target_that_can_goes_on_from_what_was_delivered(serve: Serve) -> None:
    primary, fallback = await serve(cut), await serve(continuing)
    async with engine(primary, fallback, PREFILL.format(url=fallback.url)) as running:
        chunks = [each async for each in running.stream(question(body={"max_tokens": 9}))]
    assert text_of(chunks) == "Paris"
    assert chunks[1].body["engine"] == {"rescue": "continued", "target": "second/m2"}
    assert fallback.exchanges[0].json["max_tokens"] == 8


async def test_a_target_that_refuses_to_go_on_is_asked_from_the_start(serve: Serve) -> None:
    async def refusing(exchange: Exchange) -> None:
        if exchange.json["messages"][-1]["role"] == "assistant":  # type: ignore[index]
            await exchange.reply(400, error("prefill is not supported"))
        else:
            await good(exchange)

    primary, fallback = await serve(cut), await serve(refusing)
    async with engine(primary, fallback, PREFILL.format(url=fallback.url)) as running:
        chunks = [each async for each in running.stream(question())]
        report = running.report()
    assert text_of(chunks) == "Paris"
    assert report["targets"]["second/m2"]["attempt_outcomes"] == {"invalid_request": 1, "ok": 1}


async def test_a_single_target_is_asked_again(serve: Serve) -> None:
    server = await serve(then_good(cut))
    words = ["provider=openai", f"provider.base_url={server.url}", "model=remote", "model.name=m1"]
    async with Engine.compose([*words, *QUICK]) as running:
        chunks = [each async for each in running.stream(question())]
    assert text_of(chunks) == "Paris"
    assert len(server.exchanges) == 2


async def test_a_stream_that_nobody_can_rescue_ends_with_its_error(serve: Serve) -> None:
    primary, fallback = await serve(cut), await serve(broken)
    async with engine(primary, fallback) as running:
        with pytest.raises(Truncated):
            _ = [each async for each in running.stream(question())]
        assert held(running) == 0
    assert len(primary.exchanges) == 1 + 2  # as many rescues as policy.stream.max_rescues


@pytest.mark.parametrize(("fault", "kind"), [(too_long, "too_long"), (filtered, "content_filtered")])
async def test_what_no_other_try_can_mend_is_not_routed_around(
    serve: Serve, fault: Callable[[Exchange], Awaitable[None]], kind: str
) -> None:
    primary, fallback = await serve(fault), await serve(good)
    async with engine(primary, fallback) as running:
        result = await running.submit(question())
    assert result.error is not None
    assert result.error.kind == kind
    assert len(primary.exchanges) == 1
    assert fallback.exchanges == []


async def test_an_outage_costs_few_calls_and_ends_soon_after_the_provider_is_back(serve: Serve) -> None:
    down = True

    async def flapping(exchange: Exchange) -> None:
        await (broken if down else good)(exchange)

    primary, fallback = await serve(flapping), await serve(good)
    breaker = ["policy.breaker.min_calls=4", "policy.breaker.open_s=0.3", "policy.breaker.max_open_s=0.3"]
    async with engine(primary, fallback, *breaker) as running:
        loop = asyncio.get_running_loop()
        outage_ends = loop.time() + 1.5
        while loop.time() < outage_ends:
            result = await running.submit(question())
            assert result.ok
        # 4 until it opens, then at most 2 probes in each of the pauses of at least 0.3 s, each probe a try of its own
        assert len(primary.exchanges) <= 4 + 2 * 5
        down = False
        back = loop.time()
        while (await running.submit(question())).engine.target != "openai/m1":
            assert loop.time() - back < 2.0
            await asyncio.sleep(0.01)
        circuits = {key[1]: circuit for key, circuit in running.resources.items("breaker").items()}
        assert circuits[primary.url].state in (State.HALF_OPEN, State.CLOSED)


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_two_keys_share_the_load_and_a_revoked_one_is_left_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_2", "another-key-for-tests")
    revoked: set[str] = set()

    async def checking(exchange: Exchange) -> None:
        await (unauthorised if exchange.headers["authorization"] in revoked else good)(exchange)

    primary, fallback = await serve(checking), await serve(good)
    async with engine(primary, fallback, f"provider.transport.kind={transport}") as running:
        before = [await running.submit(question()) for _ in range(4)]
        revoked.add("Bearer a-key-for-tests")
        after = [await running.submit(question()) for _ in range(6)]
    used = [result.engine.attempts[-1].key for result in before]
    assert used == ["OPENAI_API_KEY", "OPENAI_API_KEY_2"] * 2
    assert all(result.ok and result.engine.target == "openai/m1" for result in after)
    refused = [attempt.outcome for result in after for attempt in result.engine.attempts].count("auth")
    assert refused == 2  # the key had worked, so a second request decides
