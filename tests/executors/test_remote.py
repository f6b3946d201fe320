from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from engine.core.errors import (
    AuthFailed,
    ConfigError,
    ConnectFailed,
    InferenceError,
    Internal,
    Malformed,
    SetupError,
    Throttled,
    TooLong,
)
from engine.core.request import Attempt, Context, EngineRecord, Request, Result
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, LocalProviderSpec, RemoteProviderSpec, TransportSpec
from tests.servers.replies import chunk, completion, error, usage_chunk
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]
Make = Callable[..., RemoteExecutor]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
VALUE = "sk-canary0123456789abcdefghij"
NO_KEY = CredentialSpec(required=False)
KEYS = CredentialSpec(env=("REMOTE_TEST_KEY",))


def target(base_url: str, *, transport: str = "aiohttp", **fields: Any) -> TargetSpec:
    spec = TransportSpec(kind=transport, trust_env=False)
    fields = {"credential": NO_KEY, **fields}
    provider = RemoteProviderSpec(kind="remote", name="test", base_url=base_url, transport=spec, **fields)
    return TargetSpec(
        provider=provider, model=ModelSpec(name="llama", ids={"test": "m"}), hardware=AutoHardwareSpec(kind="auto")
    )


@pytest.fixture(params=["aiohttp", "httpx"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    services = Services()

    def of(base_url: str, **fields: Any) -> RemoteExecutor:
        return RemoteExecutor(target(base_url, transport=request.param, **fields), services)

    yield of
    await services.aclose()


def context(key: str | None = None, stream: bool = False) -> Context:
    made = Context(EngineRecord(attempts=[Attempt("test/m", key)]), 0.0, stream=stream)
    made.attempt = made.record.attempts[0]
    return made


async def ask(executor: RemoteExecutor, where: Context | None = None, task: str = "chat", **body: Any) -> Result:
    return await executor(Request(task, body or CHAT, id="r1"), where or context())


async def stream(executor: RemoteExecutor, where: Context | None = None, **body: Any) -> list[Chunk]:
    result = await ask(executor, where or context(stream=True), **body)
    assert result.stream is not None
    return [each async for each in result.stream]


async def answer(exchange: Exchange) -> None:
    await exchange.reply(200, completion(), {"x-request-id": "req_1"})


async def stream_answer(exchange: Exchange) -> None:
    await exchange.start({"x-request-id": "req_1"})
    for body in (chunk(""), chunk("Pa"), chunk("ris"), chunk(None, "stop"), usage_chunk(7, 2), b"[DONE]"):
        await exchange.event(body)
    await exchange.end()


async def stream_then_hang(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(chunk("Pa"))
    await exchange.until_left()


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_reply_becomes_a_result(make: Make, serve: Serve) -> None:
    server = await serve(answer)
    where = context()
    result = await ask(make(f"{server.url}/v1/"), where)
    assert (result.id, result.body, result.usage) == ("r1", completion(), Usage(7, 2))
    assert where.attempt is not None
    assert (where.attempt.status, where.attempt.provider_request_id) == (200, "req_1")
    sent = server.exchanges[0]
    assert (sent.path, sent.json) == ("/v1/chat/completions", {**CHAT, "model": "m"})
    assert "authorization" not in sent.headers


async def test_a_hint_beyond_a_day_is_cut_to_a_day_and_told(make: Make, serve: Serve) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(429, error("Rate limited"), {"retry-after": str(40 * 86400)})

    server = await serve(refuse)
    with pytest.raises(Throttled, match=r"retry hint: got 40\.0 days; expected 1 day at most") as raised:
        await ask(make(server.url))
    assert raised.value.retry_after_s == 86400


async def test_a_model_that_was_chosen_further_out_is_kept(make: Make, serve: Serve) -> None:
    server = await serve(answer)
    await ask(make(server.url), **CHAT, model="other")
    assert server.exchanges[0].json["model"] == "other"


async def test_nothing_of_the_engine_reaches_the_wire(make: Make, serve: Serve) -> None:
    server = await serve(answer)
    request = Request("chat", CHAT, priority="high", deadline_s=9, metadata={"tenant": "canary"})
    await make(server.url)(request, context())
    assert set(server.exchanges[0].json) == {"messages", "model"}
    assert "canary" not in str(server.exchanges[0].headers)


async def test_a_stream_gives_its_chunks_and_its_usage(make: Make, serve: Serve) -> None:
    server = await serve(stream_answer)
    where = context(stream=True)
    chunks = await stream(make(server.url), where)
    assert [each.body for each in chunks] == [chunk(""), chunk("Pa"), chunk("ris"), chunk(None, "stop")]
    assert chunks[-1].usage == Usage(7, 2)
    assert where.attempt is not None
    assert (where.attempt.status, where.attempt.provider_request_id) == (200, "req_1")
    assert server.exchanges[0].json["stream"] is True


async def test_a_caller_who_asks_for_the_usage_chunk_gets_it(make: Make, serve: Serve) -> None:
    server = await serve(stream_answer)
    chunks = await stream(make(server.url), context(stream=True), stream_options={"include_usage": True})
    assert chunks[-1].body == usage_chunk()
    assert chunks[-1].usage == Usage(7, 2)


async def test_the_providers_own_headers_are_sent(make: Make, serve: Serve) -> None:
    server = await serve(answer)
    await ask(make(server.url, headers={"HTTP-Referer": "https://example.org", "Accept": "x/y"}))
    assert server.exchanges[0].headers["http-referer"] == "https://example.org"
    assert server.exchanges[0].headers["accept"] == "x/y"


async def test_connections_are_used_again_after_replies_streams_and_errors(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        if len(server.exchanges) % 3 == 0:
            await exchange.reply(429, error("slow down"))
        elif exchange.json.get("stream"):
            await stream_answer(exchange)
        else:
            await answer(exchange)

    server = await serve(script)
    executor = make(server.url)
    for _ in range(2):
        await ask(executor)
        await stream(executor)
        with pytest.raises(InferenceError):
            await ask(executor)
    assert server.connections == 1


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_TEST_KEY_1", VALUE)
    monkeypatch.setenv("REMOTE_TEST_KEY_2", "second")


@pytest.mark.usefixtures("two_keys")
async def test_a_call_carries_its_attempts_key(make: Make, serve: Serve) -> None:
    server = await serve(answer)
    executor = make(server.url, credential=KEYS)
    assert executor.keys == ("REMOTE_TEST_KEY_1", "REMOTE_TEST_KEY_2")
    await ask(executor, context("REMOTE_TEST_KEY_2"))
    await ask(executor, context(None))
    assert [each.headers["authorization"] for each in server.exchanges] == ["Bearer second", f"Bearer {VALUE}"]


@pytest.mark.usefixtures("two_keys")
async def test_a_key_that_the_target_does_not_have_is_a_defect(make: Make) -> None:
    with pytest.raises(Internal, match="REMOTE_TEST_KEY_1, REMOTE_TEST_KEY_2"):
        await ask(make("http://127.0.0.1:1", credential=KEYS), context("REMOTE_TEST_KEY_9"))


def test_a_missing_key_is_refused_before_any_call() -> None:
    with pytest.raises(SetupError, match="provider 'test' has no key: looked in env REMOTE_TEST_KEY"):
        RemoteExecutor(target("http://127.0.0.1:1", credential=KEYS), Services())


@pytest.mark.usefixtures("two_keys")
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
async def test_a_key_that_the_provider_echoes_is_masked(make: Make, serve: Serve, status: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, error(f"Bad key {VALUE} in {exchange.headers['authorization']}", VALUE))

    executor = make((await serve(script)).url, credential=KEYS)
    with pytest.raises(InferenceError) as caught:
        await ask(executor, context("REMOTE_TEST_KEY_1"))
    assert "Bad key *** in Bearer ***" in caught.value.message
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.as_dict()) + repr(caught.value)
    assert "canary" not in shown


@pytest.mark.usefixtures("two_keys")
async def test_a_key_that_a_stream_echoes_is_masked(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event(error(f"Bad key {VALUE}"))

    executor = make((await serve(script)).url, credential=KEYS)
    with pytest.raises(InferenceError) as caught:
        await stream(executor, context("REMOTE_TEST_KEY_1", stream=True))
    assert "Bad key ***" in str(caught.value)


@pytest.mark.usefixtures("two_keys")
async def test_a_refused_key_is_named(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(401, error("Invalid API Key"))

    executor = make((await serve(script)).url, credential=KEYS)
    with pytest.raises(AuthFailed, match="key REMOTE_TEST_KEY_2: HTTP 401: Invalid API Key"):
        await ask(executor, context("REMOTE_TEST_KEY_2"))


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_status_is_a_typed_error_with_its_hint(make: Make, serve: Serve, streaming: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(429, error("slow down"), {"retry-after": "2", "x-request-id": "req_9"})

    where = context(stream=streaming)
    with pytest.raises(InferenceError) as caught:
        await ask(make((await serve(script)).url), where)
    assert (caught.value.kind, caught.value.retry_after_s) == ("throttled", 2)
    assert where.attempt is not None
    assert (where.attempt.status, where.attempt.provider_request_id) == (429, "req_9")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(error("model is overloaded", None, "overloaded_error"), "overloaded"), (completion(), "malformed")],
)
async def test_json_where_a_stream_was_asked_for_is_an_error(make: Make, serve: Serve, body: Any, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, body)

    with pytest.raises(InferenceError) as caught:
        await stream(make((await serve(script)).url))
    assert caught.value.kind == kind


async def test_a_redirect_is_refused(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(308, b"", {"location": "https://elsewhere.example/v1"})

    server = await serve(script)
    with pytest.raises(InferenceError, match=r"set provider\.base_url"):
        await ask(make(server.url))
    assert len(server.exchanges) == 1


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("end", "truncated"), ("cut", "truncated"), ("broken", "truncated"), ("error", "server")],
)
async def test_a_stream_that_breaks_keeps_its_chunks_and_raises(
    make: Make, serve: Serve, ending: str, kind: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event(chunk("Pa"))
        if ending == "end":
            await exchange.end()
        elif ending == "cut":
            exchange.cut()
        else:
            await exchange.event(b"{broken" if ending == "broken" else error("boom"))
            await exchange.until_left()

    server = await serve(script)
    result = await ask(make(server.url), context(stream=True))
    assert result.stream is not None
    settled: list[Any] = []
    result.stream.on_settle(settled.append)
    chunks: list[Chunk] = []
    with pytest.raises(InferenceError) as caught:
        async for each in result.stream:
            chunks.append(each)
    assert [each.body for each in chunks] == [chunk("Pa")]
    assert caught.value.kind == kind
    assert settled == [caught.value]
    if ending in ("broken", "error"):
        await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


async def test_a_server_that_goes_on_after_done_is_left(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event(chunk("x", "stop"))
        await exchange.event(b"[DONE]")
        await exchange.until_left()

    server = await serve(script)
    assert len(await stream(make(server.url))) == 1
    await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


# -- what JSON only just allows ----------------------------------------------------------------------------------------


def _encoded(text: str = "fine") -> bytes:
    return msgspec.json.encode(completion(text))


NEARLY = {
    "a lone surrogate": _encoded("fine CUT").replace(b"CUT", b"\\ud83d"),
    "NaN": _encoded()[:-1] + b', "logprobs": [NaN, -Infinity]}',
    "a byte order mark": b"\xef\xbb\xbf" + _encoded(),
    "raw control characters": _encoded("fine CUT").replace(b"CUT", b"a\nb\x01"),
    "data behind": _encoded() + b"\n<!-- served by a proxy -->",
    "deep nesting": _encoded()[:-1] + b', "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
}


@pytest.mark.parametrize("kind", NEARLY)
@pytest.mark.parametrize("status", [200, 201])
async def test_a_reply_that_is_nearly_json_is_an_answer_with_a_warning(
    make: Make, serve: Serve, kind: str, status: int
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, NEARLY[kind])

    server, where = await serve(script), context()
    result = await ask(make(server.url), where)
    assert result.text is not None
    assert result.text.startswith("fine")
    assert where.record.warnings
    assert all(warning.startswith("the reply is not strict JSON: ") for warning in where.record.warnings)
    msgspec.json.encode(result.body)
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("status", [201, 202, 203])
async def test_each_status_of_success_may_bring_an_answer(make: Make, serve: Serve, status: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, completion())

    assert (await ask(make((await serve(script)).url))).text == "Paris."


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_a_success_without_an_answer_is_malformed(make: Make, serve: Serve, status: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, b"")

    with pytest.raises(Malformed, match=f"HTTP {status}") as raised:
        await ask(make((await serve(script)).url))
    assert raised.value.status == status


async def test_a_stream_with_events_that_are_nearly_json_is_an_answer(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.event(msgspec.json.encode(chunk("a CUT")).replace(b"CUT", b"\\ud83d"))
        await exchange.event(msgspec.json.encode(chunk("b"))[:-1] + b', "x": NaN}')
        await exchange.event(chunk(None, "stop"))
        await exchange.end()

    chunks = await stream(make((await serve(script)).url))
    assert "".join(each.text for each in chunks) == "a \ufffdb"


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [0, 1])
async def test_leaving_a_stream_closes_the_upstream_call(make: Make, serve: Serve, chunks: int) -> None:
    server = await serve(stream_then_hang)
    result = await ask(make(server.url), context(stream=True))
    assert result.stream is not None
    for _ in range(chunks):
        await anext(result.stream)
    await result.stream.aclose()
    await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


async def test_cancelling_in_the_middle_of_a_stream_closes_the_upstream_call(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    result = await ask(make(server.url), context(stream=True))
    assert result.stream is not None
    await anext(result.stream)
    waiting = asyncio.ensure_future(anext(result.stream))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


async def test_cancelling_a_call_closes_the_upstream_call(make: Make, serve: Serve) -> None:
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await exchange.until_left()

    server = await serve(script)
    call = asyncio.ensure_future(ask(make(server.url)))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(server.exchanges[0].left.wait(), 2)


# -- settings and check ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "api.openai.com/v1", "ftp://x/v1", "http://", "http://h:99999/v1", "http://[::1/v1"]
)
def test_a_base_url_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"provider\.base_url"):
        RemoteExecutor(target(url), Services())


@pytest.mark.parametrize("url", ["https://u:canary@h/v1", "https://h/v1?key=canary", "https://h/v1#canary"])
def test_a_base_url_that_may_hold_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RemoteExecutor(target(url), Services())
    assert "canary" not in str(caught.value)


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"provider\.headers\.x-a"):
        RemoteExecutor(target("http://h/v1", headers={"x-a": "1\r\nx-b: 2"}), Services())


def test_an_unknown_dialect_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean openai"):
        RemoteExecutor(target("http://h/v1", dialect="openia"), Services())


def test_a_provider_of_another_kind_is_refused() -> None:
    spec = target("http://h/v1").model_copy(update={"provider": LocalProviderSpec(kind="local", default_model="x")})
    with pytest.raises(ConfigError, match="not remote"):
        RemoteExecutor(spec, Services())


@pytest.mark.usefixtures("two_keys")
async def test_check_says_what_it_found_for_each_key(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.headers["authorization"] == "Bearer second":
            await exchange.reply(401, error("Invalid API Key"))
        else:
            await exchange.reply(200, {"data": [{"id": "m"}, {"id": "n"}]})

    server = await serve(script)
    line = await make(f"{server.url}/v1", credential=KEYS).check()
    assert line == (
        f"{server.url}: REMOTE_TEST_KEY_1 ok, has m (2 models); "
        "REMOTE_TEST_KEY_2 auth: key REMOTE_TEST_KEY_2: HTTP 401: Invalid API Key"
    )
    assert [(each.method, each.path, each.body) for each in server.exchanges] == [
        ("GET", "/v1/models", b""),
        ("POST", "/v1/chat/completions", b"{}"),
        ("GET", "/v1/models", b""),
    ]


async def test_check_says_when_there_is_no_list_of_models(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.reply(404, error("Not Found"))
        else:
            await exchange.reply(200, completion("Hi."))

    said = await make((await serve(script)).url).check()
    assert said.endswith("it keeps no list of models (HTTP 404); a trial (chat) was answered")


async def test_check_raises_when_no_key_works(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(401, error("Unauthorized"))

    with pytest.raises(AuthFailed, match="no key was sent: HTTP 401"):
        await make((await serve(script)).url).check()


async def test_check_raises_when_nobody_is_there(make: Make) -> None:
    with pytest.raises(ConnectFailed, match="is the server running"):
        await make("http://127.0.0.1:1/v1").check()


# -- a third party's server --------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_llama_cpp_answers(make: Make, llama_cpp_url: str) -> None:
    result = await ask(make(llama_cpp_url), **CHAT, max_tokens=24, temperature=0)
    assert result.body is not None
    assert result.body["choices"][0]["message"]["content"]
    assert result.usage is not None
    assert result.usage.output_tokens > 0


@pytest.mark.slow
async def test_llama_cpp_streams_the_same_answer(make: Make, llama_cpp_url: str) -> None:
    executor = make(llama_cpp_url)
    body: dict[str, Any] = {**CHAT, "max_tokens": 24, "temperature": 0, "cache_prompt": False}
    whole = await ask(executor, **body)
    chunks = await stream(executor, **body)
    parts = [choice["delta"].get("content") or "" for each in chunks for choice in each.body["choices"]]
    assert whole.body is not None
    assert "".join(parts) == whole.body["choices"][0]["message"]["content"]
    assert sum(map(bool, parts)) > 3
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.output_tokens == whole.usage.output_tokens


@pytest.mark.slow
async def test_llama_cpp_completes(make: Make, llama_cpp_url: str) -> None:
    result = await ask(
        make(llama_cpp_url), task="completion", prompt="The capital of France is", max_tokens=4, temperature=0
    )
    assert result.body is not None
    assert "Paris" in result.body["choices"][0]["text"]


@pytest.mark.slow
async def test_llama_cpp_embeds(make: Make, llama_cpp_embedding_url: str) -> None:
    result = await ask(make(llama_cpp_embedding_url), task="embedding", input=["a cat", "a dog"])
    assert result.body is not None
    assert [len(each["embedding"]) for each in result.body["data"]] == [576, 576]


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
async def test_llama_cpp_says_that_a_prompt_is_too_long(make: Make, llama_cpp_url: str, streaming: bool) -> None:
    messages = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(TooLong, match="context size"):
        await ask(make(llama_cpp_url), context(stream=streaming), messages=messages)


@pytest.mark.slow
async def test_llama_cpp_stops_when_a_stream_is_left(make: Make, llama_cpp_url: str) -> None:
    executor = make(llama_cpp_url)
    # Both slots are kept busy by streams that would run on for long; leaving them frees the slots for the next call.
    for _ in range(4):
        result = await ask(executor, context(stream=True), **CHAT, max_tokens=400, ignore_eos=True)
        assert result.stream is not None
        await anext(result.stream)
        await result.stream.aclose()
    async with asyncio.timeout(5):
        await ask(executor, **CHAT, max_tokens=1)


@pytest.mark.slow
async def test_llama_cpp_is_found_by_check(make: Make, llama_cpp_url: str) -> None:
    assert "no key ok" in await make(llama_cpp_url).check()


async def test_embeddings_that_are_not_one_for_each_input_are_malformed(make: Make, serve: Serve) -> None:
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}]}
    server = await serve(lambda exchange: exchange.reply(200, body))
    with pytest.raises(Malformed, match="expected 2 embeddings, got 1"):
        await ask(make(server.url), task="embedding", input=["a", "b"])
