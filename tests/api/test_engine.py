"""The engine as a library: one result a request, streams, order, plain and awaited use, clean ends."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import ConfigError, Engine, EngineError, InferenceError, Request
from engine.core.errors import InvalidRequest
from tests.servers.scripted import Exchange


def chat(text: str = "hello", **fields: object) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": text}]}, **fields)  # type: ignore[arg-type]


def simulated(*overrides: str) -> Engine:
    return Engine.compose(["provider=simulated", *overrides])


async def test_a_request_has_one_result_with_its_reply_usage_and_record() -> None:
    async with simulated() as engine:
        result = await engine.submit(chat(id="a", metadata={"row": 1}, priority="high"))
    assert result.ok
    assert result.id == "a"
    assert result.body is not None
    assert result.body["choices"][0]["message"]["content"].startswith("[simulated]")
    assert result.usage is not None
    assert result.usage.output_tokens == 8
    assert result.engine.target == "simulated/simulated"
    assert [attempt.outcome for attempt in result.engine.attempts] == ["ok"]
    assert (result.engine.metadata, result.engine.priority) == ({"row": 1}, "high")


async def test_a_failed_inference_is_a_result_and_not_an_exception() -> None:
    async with simulated("provider.failure_rate=1", "provider.failure_kind=auth") as engine:
        result = await engine.submit(chat())
    assert not result.ok
    assert result.error is not None
    assert result.error.kind == "auth"
    assert result.body is None


async def test_a_failed_target_gives_way_to_the_fallback_with_its_attempts_on_record() -> None:
    fallback = "fallbacks=[{provider:{use:simulated,name:second}}]"
    options = ["provider.failure_rate=1", "policy.retry.max_retries=1", "policy.retry.initial_delay_s=0", fallback]
    async with simulated(*options) as engine:
        result = await engine.submit(chat())
        assert result.ok
        assert result.engine.target == "second/simulated"
        assert [(a.target, a.outcome) for a in result.engine.attempts] == [
            ("simulated/simulated", "server"),
            ("simulated/simulated", "server"),
            ("second/simulated", "ok"),
        ]
        chunks = [chunk async for chunk in engine.stream(chat())]
        assert chunks[-1].body["model"] == "simulated"


async def test_a_request_that_no_target_can_mend_is_not_passed_on() -> None:
    options = ["provider.failure_rate=1", "provider.failure_kind=invalid_request", "fallbacks=[{provider:simulated}]"]
    async with simulated(*options) as engine:
        result = await engine.submit(chat())
    assert result.error is not None
    assert result.error.kind == "invalid_request"
    assert len(result.engine.attempts) == 1


async def test_a_body_that_asks_to_be_streamed_is_answered_whole_when_submitted() -> None:
    async with simulated() as engine:
        result = await engine.submit(replace(chat(), body={**chat().body, "stream": True, "stream_options": {}}))
    assert result.body is not None
    assert result.body["object"] == "chat.completion"


async def test_a_stream_gives_openai_chunks_and_counts() -> None:
    async with simulated() as engine:
        chunks = [chunk async for chunk in engine.stream(chat())]
        text = "".join(chunk.body["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text.startswith("[simulated] word2")
        assert chunks[-1].body["choices"][0]["finish_reason"] == "stop"
        report = engine.report()
    assert (report["requests"], report["ok"], report["tokens"]["output"]) == (1, 1, 8)
    assert report["first_token_s"]["count"] == 1


async def test_a_stream_that_breaks_raises_the_typed_error() -> None:
    async with simulated("provider.failure_rate=1", "provider.failure_kind=truncated") as engine:
        seen = []
        with pytest.raises(InferenceError) as caught:
            async for chunk in engine.stream(chat()):
                seen.append(chunk)
        assert caught.value.kind == "truncated"
        assert len(seen) == 4
        assert engine.report()["outcomes"] == {"truncated": 1}


async def test_leaving_a_stream_early_gives_everything_back() -> None:
    async with simulated("provider.token_s=0.01", "policy.queue.concurrency=1") as engine:
        for _ in range(3):
            async for _chunk in engine.stream(chat()):
                break
        result = await asyncio.wait_for(engine.submit(chat()), 5)
        assert result.ok
        assert engine.report()["outcomes"] == {"ok": 1, "cancelled": 3}


async def test_map_keeps_the_order_and_reads_no_further_than_its_window() -> None:
    read = 0

    async def requests() -> AsyncIterator[Request]:
        nonlocal read
        for number in range(50):
            read += 1
            yield chat(id=str(number))

    async with simulated() as engine:
        ids = []
        async for result in engine.map(requests(), window=4):
            ids.append(result.id)
            assert read <= len(ids) + 4
    assert ids == [str(number) for number in range(50)]


async def test_map_can_yield_as_they_finish() -> None:
    async with simulated("policy=off") as engine:
        requests = [chat(id=str(number)) for number in range(20)]
        ids = [result.id async for result in engine.map(requests, ordered=False)]
    assert sorted(ids) == sorted(request.id or "" for request in requests)


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "chatt"},
        {"task": ["chat"]},
        {"priority": "urgent"},
        {"priority": ["high"]},
        {"deadline_s": 0},
        {"deadline_s": -1},
        {"deadline_s": "soon"},
        {"body": "text"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused_when_it_is_made(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        Request(**{"task": "chat", "body": {}, **fields})  # type: ignore[arg-type]


async def test_a_requests_own_deadline_holds() -> None:
    async with simulated("provider.latency_s=30") as engine:
        result = await engine.submit(chat(deadline_s=0.05))
    assert result.error is not None
    assert result.error.kind == "deadline"


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    async with simulated("provider.latency_s=30", "policy.queue.concurrency=1") as engine:
        tasks = [asyncio.create_task(engine.submit(chat())) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        (gate,) = engine.resources.items("queue").values()
        assert (gate.active, gate.waiting) == (0, 0)


async def test_handlers_are_a_mapping_and_a_call_and_work_awaited() -> None:
    async with simulated() as engine:
        handlers = engine.endpoint_handler
        assert list(handlers) == ["simulated"]
        assert list(handlers["simulated"]) == ["chat", "completion", "embedding", "rerank", "token-count"]
        assert "embeddings" in handlers["simulated"]
        assert repr(handlers("simulated", "/v1/chat/completions")) == repr(handlers("simulated", "chat"))
        assert repr(handlers["simulated"]["chat"]) == repr(handlers("simulated", "chat"))
        assert (await handlers("simulated", "chat")("hello")).ok
        embedded = await handlers("simulated", "embedding")(["a", "b"])
        assert len(embedded.body["data"]) == 2
        limited = await handlers("simulated", "completion")("once", max_tokens=2)
        assert limited.usage.output_tokens == 2


async def test_an_unknown_model_or_endpoint_raises_with_the_nearest_names() -> None:
    async with simulated() as engine:
        with pytest.raises(ConfigError, match="did you mean simulated"):
            engine.endpoint_handler("simulatet", "chat")
        with pytest.raises(ConfigError, match="did you mean chat"):
            engine.endpoint_handler("simulated", "chatt")
        with pytest.raises(KeyError):
            engine.endpoint_handler["gpt-9"]


async def test_a_fallbacks_model_is_reached_by_its_name() -> None:
    fallback = "fallbacks=[{provider:{use:simulated,name:second},model:{use:simulated,name:other}}]"
    async with simulated(fallback) as engine:
        result = await engine.endpoint_handler("other", "chat")("hello")
        assert result.engine.target == "second/other"


async def test_a_plain_call_on_the_engines_own_loop_says_to_await() -> None:
    async with simulated() as engine:
        pending = engine.endpoint_handler("simulated", "chat")("hello")
        with pytest.raises(EngineError, match="await"):
            _ = pending.ok
        assert (await pending).ok
        with pytest.raises(EngineError, match="await"):
            engine.sync.submit(chat())


async def test_a_plain_call_works_while_another_loop_runs() -> None:
    engine = simulated()
    try:
        pending = engine.endpoint_handler("simulated", "chat")("hello")
        assert pending.ok
        assert (await engine.endpoint_handler("simulated", "chat")("hello")).ok
    finally:
        await engine.aclose()


async def test_threads_and_the_loop_submit_at_once() -> None:
    async with simulated() as engine:
        handler = engine.endpoint_handler("simulated", "chat")
        plain = [asyncio.to_thread(handler, f"{n}") for n in range(50)]
        results = await asyncio.gather(*plain, *(engine.submit(chat()) for _ in range(50)))
        assert all(result.ok for result in results)
        assert engine.report()["requests"] == 100


def test_plain_use_from_many_threads() -> None:
    with simulated() as engine:
        handler = engine.endpoint_handler("simulated", "chat")
        answers: list[bool] = []
        threads = [threading.Thread(target=lambda: answers.append(handler("x").ok)) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 100
        assert len(list(engine.sync.stream(chat()))) == 9
        assert [result.ok for result in engine.sync.map([chat(), chat()])] == [True, True]


def test_a_closed_engine_says_so() -> None:
    engine = simulated()
    with engine:
        pass
    with pytest.raises(EngineError, match="closed"):
        engine.sync.submit(chat())


async def test_the_plan_of_the_chain_is_in_its_real_order() -> None:
    names = [line.name for line in simulated("fallbacks=[{provider:simulated}]").describe()]
    assert names[:5] == ["trace", "deadline", "rescue", "fallback", "preflight"]
    assert names[5:10] == ["retry", "queue", "route", "parameters", "rate_limit"]
    assert names[10:15] == ["concurrency", "breaker", "timeout", "batch", "executor"]
    bare = ["trace", "fallback", "route", "parameters", "executor"]
    assert [line.name for line in simulated("policy=off").describe()] == bare


@pytest.mark.parametrize("used", [False, True])
async def test_a_closed_engine_takes_nothing_on_its_own_loop(used: bool) -> None:
    async with simulated() as engine:
        if used:
            await engine.submit(chat())
    with pytest.raises(EngineError, match="closed"):
        await engine.submit(chat())
    with pytest.raises(EngineError, match="closed"):
        await anext(aiter(engine.stream(chat())))


def test_an_engine_whose_loop_has_ended_says_so() -> None:
    engine = simulated()
    assert asyncio.run(engine.submit(chat())).ok
    with pytest.raises(EngineError, match="event loop that this engine ran on has ended"):
        asyncio.run(engine.submit(chat()))
    with pytest.raises(EngineError, match="has ended"):
        engine.sync.submit(chat())
    engine.close()


@pytest.mark.slow
def test_closing_frees_a_thread_that_waits_for_an_answer() -> None:
    engine = simulated("provider.latency_s=60")
    said: list[str] = []

    def ask() -> None:
        try:
            engine.sync.submit(chat())
        except EngineError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    deadline = time.monotonic() + 5
    while not engine.resources.items("queue") or not next(iter(engine.resources.items("queue").values())).active:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.close()
    thread.join(5)
    assert said == ["this engine was closed while a request was in flight"]


async def test_closing_plainly_on_the_engines_own_loop_says_to_await() -> None:
    async with simulated() as engine:
        with pytest.raises(EngineError, match=r"await engine\.aclose"):
            engine.close()


@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
async def test_requests_under_way_when_the_engine_closes_fail_and_open_nothing_new(serve: Any, kind: str) -> None:
    asked = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        asked.set()
        await exchange.until_left()

    server = await serve(silent)
    engine = Engine.compose(
        [
            "provider=llama_cpp",
            f"provider.base_url={server.url}",
            f"provider.transport.kind={kind}",
            "policy.queue.concurrency=1",
            "policy.retry.initial_delay_s=0",
        ]
    )
    tasks = [asyncio.create_task(engine.submit(chat())) for _ in range(3)]
    await asked.wait()
    await engine.aclose()
    results = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert {result.error.kind for result in results if result.error} == {"cancelled"}
    assert server.connections == 1


async def test_leaving_map_waits_for_what_it_cancels() -> None:
    async with simulated("provider.latency_s=30") as engine:
        results = engine.map([chat()] * 20, window=10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.02)
        await results.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        (gate,) = engine.resources.items("queue").values()
        assert gate.active == 0


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_gives_a_result_before_a_slow_source_gives_the_next_request(ordered: bool) -> None:
    answered = asyncio.Event()

    async def source() -> AsyncIterator[Request]:
        yield chat()
        await answered.wait()
        yield chat()

    async with simulated() as engine:
        count = 0
        async with asyncio.timeout(5):
            async for _ in engine.map(source(), ordered=ordered):
                count += 1
                answered.set()
    assert count == 2


async def test_what_maps_source_raises_comes_after_its_answers() -> None:
    def source() -> Iterator[Request]:
        yield from (chat(), chat())
        raise ValueError("row 3")

    async with simulated() as engine:
        seen: list[bool] = []
        with pytest.raises(ValueError, match="row 3"):
            async for result in engine.map(source()):
                seen.append(result.ok)
    assert seen == [True, True]
    with simulated() as plain:
        got: list[bool] = []
        with pytest.raises(ValueError, match="row 3"):
            got.extend(result.ok for result in plain.sync.map(source()))


@pytest.mark.parametrize("ordered", [True, False])
def test_plain_map_reads_its_source_on_the_callers_thread_and_lazily(ordered: bool) -> None:
    read: list[int] = []

    def source() -> Iterator[Request]:
        for _ in range(50):
            read.append(threading.get_ident())
            yield chat()

    with simulated() as engine:
        results = engine.sync.map(source(), window=4, ordered=ordered)
        assert next(results).ok
        assert len(read) <= 5
        assert sum(result.ok for result in results) == 49
    assert set(read) == {threading.get_ident()}


async def test_a_fallback_that_cant_be_loaded_gives_way_to_the_next_one(tmp_path: Path) -> None:
    missing = f"{{use:smollm2-135m,sources:[{{kind:file,path:{tmp_path}/none.gguf,format:gguf}}]}}"
    async with Engine.compose(
        [
            "provider=simulated",
            "provider.failure_rate=1",
            "policy.retry.max_retries=0",
            f"fallbacks=[{{provider:local,model:{missing}}},{{provider:{{use:simulated,name:last}}}}]",
        ]
    ) as engine:
        result = await engine.submit(chat())
    assert result.ok
    assert [attempt.outcome for attempt in result.engine.attempts] == ["server", "internal", "ok"]
    assert "no such file" in (result.engine.attempts[1].message or "")


@pytest.mark.slow
async def test_texts_that_were_cut_are_told_and_counted_one_by_one_in_a_batch() -> None:
    texts: list[str | list[str]] = ["short", "word " * 400, ["short", "word " * 400]]
    async with Engine.compose(["model=minilm-l6"]) as engine:
        results = await asyncio.gather(*(engine.submit(Request("embedding", {"input": text})) for text in texts))
    cut = "cut to the 256 tokens the model reads"
    assert [result.engine.warnings for result in results] == [[], [f"input 0: {cut}"], [f"input 1: {cut}"]]
    assert [result.usage.input_tokens for result in results if result.usage] == [3, 256, 259]


async def test_an_engine_shows_its_targets_and_state() -> None:
    engine = Engine.compose(["provider=simulated"])
    assert repr(engine) == "<Engine simulated/simulated (not started, 0 requests finished)>"
    async with engine:
        await engine.submit(Request("chat", {"messages": [{"role": "user", "content": "Hi"}]}))
        assert repr(engine) == "<Engine simulated/simulated (ready, 1 request finished)>"
    assert repr(engine) == "<Engine simulated/simulated (closed, 1 request finished)>"
