from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec
import pytest

from engine.core.errors import SetupError
from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.server import SimulatedServer

Start = Callable[..., Awaitable[SimulatedServer]]
CHAT = {"messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server: `server = await start(latency_s=1)`."""
    async with AsyncExitStack() as stack:

        async def started(**spec: Any) -> SimulatedServer:
            return await stack.enter_async_context(SimulatedServer(SimulatedProviderSpec(kind="simulated", **spec)))

        yield started


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as made:
        yield made


async def post(
    client: httpx.AsyncClient, server: SimulatedServer, body: Any = CHAT, key: str = "any"
) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return await client.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def raw(server: SimulatedServer, body: Any = CHAT) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection on which a chat was asked for."""
    content = msgspec.json.encode(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(content), content)
    )
    return reader, writer


async def test_a_plain_client_gets_an_answer_that_says_simulated(start: Start, client: httpx.AsyncClient) -> None:
    reply = await post(client, await start())
    body = reply.json()
    assert reply.status_code == 200
    assert body["choices"][0]["message"]["content"] == "[simulated] word2 word3 word4 word5 word6 word7 word8"
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
    assert reply.headers["x-request-id"] == body["id"] == "simulated-1"


async def test_a_stream_has_its_usage_and_its_terminator(start: Start, client: httpx.AsyncClient) -> None:
    body = {**CHAT, "stream": True, "max_tokens": 2, "stream_options": {"include_usage": True}}
    reply = await post(client, await start(), body)
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    *chunks, usage = [msgspec.json.decode(event) for event in events[:-1]]
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["[simulated]", " word2", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 2)


async def test_completions_embeddings_and_models_are_served(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(dimensions=3)
    completion = await client.post(f"{server.url}/v1/completions", json={"prompt": "one", "max_tokens": 1})
    embeddings = await client.post(f"{server.url}/v1/embeddings", json={"input": ["one", "two", "one"], "model": "m"})
    models = await client.get(f"{server.url}/v1/models")
    vectors = [item["embedding"] for item in embeddings.json()["data"]]
    assert completion.json()["choices"][0]["text"] == "[simulated]"
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)
    assert embeddings.json()["model"] == "m"
    assert [entry["id"] for entry in models.json()["data"]] == ["simulated"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"messages": 3}', b'{"prompt": "of another task"}', b"\xff\xfe", b"[" * 100_000]
)
async def test_a_body_that_is_no_request_is_refused(start: Start, client: httpx.AsyncClient, content: bytes) -> None:
    server = await start()
    reply = await client.post(f"{server.url}/v1/chat/completions", content=content)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert server.provider.counters.calls == 0


async def test_the_date_of_a_hint_is_a_time_to_come(start: Start, client: httpx.AsyncClient) -> None:
    fault = {"kind": "throttled", "hint": "retry_after_date", "retry_after_s": 100}
    reply = await post(client, await start(faults=[fault]))
    left_s = parsedate_to_datetime(reply.headers["retry-after"]).timestamp() - time.time()
    assert reply.status_code == 429
    assert 98 < left_s <= 101


async def test_the_hints_of_other_providers_are_shown(start: Start, client: httpx.AsyncClient) -> None:
    fault = {"kind": "throttled", "retry_after_s": 2}
    gemini = await post(client, await start(faults=[{**fault, "hint": "gemini"}]))
    anthropic = await post(client, await start(faults=[{**fault, "hint": "anthropic"}]))
    assert gemini.json()["error"]["details"][0]["retryDelay"] == "2.000s"
    assert anthropic.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_a_served_call_says_what_is_left_of_the_rates(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(capacity={"requests_per_min": 60, "tokens_per_min": 6000})
    headers = (await post(client, server)).headers
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-remaining-tokens"] == "5990"
    assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_only_a_known_key_is_let_in(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(keys=2)
    replies = [await post(client, server, key=key) for key in ("sim_1", "sim_2", "sim_3")]
    models = [
        await client.get(f"{server.url}/v1/models", headers=headers)
        for headers in ({}, {"authorization": "Bearer sim_2"})
    ]
    assert [reply.status_code for reply in replies] == [200, 200, 401]
    assert replies[2].json()["error"]["code"] == "invalid_api_key"
    assert [reply.status_code for reply in models] == [401, 200]


async def test_a_broken_connection_is_a_tcp_reset(start: Start) -> None:
    reader, writer = await raw(await start(faults=[{"kind": "connect"}]))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_cut_answer_ends_before_its_length(start: Start) -> None:
    server = await start(faults=[{"kind": "truncated", "at": 0.5}])
    reader, writer = await raw(server)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    promised = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    writer.close()
    assert len(body) == promised // 2


async def test_a_cut_stream_ends_without_the_end_of_its_chunks(start: Start) -> None:
    server = await start(faults=[{"kind": "truncated", "at": 0.5}])
    reader, writer = await raw(server, {**CHAT, "stream": True})
    content = await reader.read()
    writer.close()
    assert content.count(b"data: ") == 4
    assert not content.endswith(b"0\r\n\r\n")


async def test_a_silent_call_sends_no_byte_until_its_caller_leaves(start: Start) -> None:
    server = await start(faults=[{"kind": "silent"}])
    reader, writer = await raw(server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert server.provider.counters.in_flight == 1
    writer.close()
    await until(lambda: server.provider.counters.in_flight == 0)


async def test_a_stall_comes_after_the_share_that_was_said(start: Start) -> None:
    server = await start(faults=[{"kind": "stall", "delay_s": 60, "at": 0.5}])
    reader, writer = await raw(server, {**CHAT, "stream": True})
    content = b""
    while content.count(b"\n\n") < 4:
        content += await reader.read(65536)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    writer.close()
    await until(lambda: server.provider.counters.left == 1)


async def test_a_call_whose_caller_leaves_gives_its_place_back(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(latency_s=60, capacity={"concurrency": 1})
    with pytest.raises(httpx.ReadTimeout):
        await client.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=0.1)
    await until(lambda: server.provider.counters.in_flight == 0)
    assert server.provider.counters.left == 1


async def test_calls_run_at_once(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(latency_s=0.1, capacity={"concurrency": 20})
    replies = await asyncio.gather(*(post(client, server) for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}
    assert server.provider.counters.peak_in_flight == 20


async def test_the_counters_are_shown(start: Start, client: httpx.AsyncClient) -> None:
    server = await start(failure_rate=1, failure_kind="server")
    await post(client, server)
    shown = (await client.get(f"{server.url}/simulated/counters")).json()
    assert (shown["calls"], shown["served"], shown["refused"]) == (1, 0, {"server": 1})
    assert shown["keys"]["sim_1"]["refused"] == 1


async def test_a_port_that_is_taken_is_said_with_the_way_out(start: Start) -> None:
    taken = (await start()).port
    with pytest.raises(SetupError, match=f"--port {taken}: can't listen there.*--port 0 takes a free port"):
        await SimulatedServer(SimulatedProviderSpec(kind="simulated"), port=taken).start()


@pytest.mark.slow
async def test_a_server_stops_while_calls_are_silent() -> None:
    server = SimulatedServer(SimulatedProviderSpec(kind="simulated", faults=[{"kind": "silent"}]))  # type: ignore[arg-type]
    await server.start()
    reader, writer = await raw(server)
    await until(lambda: server.provider.counters.in_flight == 1)
    await asyncio.wait_for(server.aclose(), 5)
    assert await reader.read() == b""
    assert server.provider.counters.in_flight == 0
    writer.close()
