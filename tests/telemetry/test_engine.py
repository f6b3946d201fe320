"""What an engine does with its group `telemetry`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine import Engine, InferenceError, Request, Result, SetupError
from tests.telemetry.served import ANSWERED, chat, engine, spans


def heard(told: Engine) -> list[tuple[Request, Result]]:
    calls: list[tuple[Request, Result]] = []
    told.observers.append(lambda request, result: calls.append((request, result)))
    return calls


async def test_an_observer_hears_of_every_request_once_whatever_became_of_it() -> None:
    async with engine({"latency_s": 0.01}) as told:
        calls = heard(told)
        await told.submit(chat(id="whole"))
        _ = [chunk async for chunk in told.stream(chat(id="stream"))]
        left = told.stream(chat(id="left"))
        await anext(left)
        await left.aclose()
        cancelled = asyncio.create_task(told.submit(chat(id="cancelled")))
        await asyncio.sleep(0.001)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    outcomes = {request.id: result.error.kind if result.error else "ok" for request, result in calls}
    assert outcomes == {"whole": "ok", "stream": "ok", "left": "cancelled", "cancelled": "cancelled"}
    assert len(calls) == 4


async def test_a_failed_request_is_heard_with_its_error() -> None:
    async with engine({"failure_rate": 1, "failure_kind": "auth"}) as told:
        calls = heard(told)
        await told.submit(chat())
        with pytest.raises(InferenceError):
            _ = [chunk async for chunk in told.stream(chat())]
    assert [result.error.kind for _, result in calls if result.error] == ["auth", "auth"]


async def test_the_report_has_the_state_of_the_stages() -> None:
    async with engine() as told:
        (queue,) = told.report()["stages"]["queue"]
    assert (queue["target"], queue["queue_waiting"]) == ("simulated/m", 0)


async def test_the_engine_serves_its_metrics_while_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "engine.prom"
    async with engine(telemetry={"prometheus_port": 0, "prometheus_file": str(path)}) as told:
        await told.submit(chat())
        url = f"http://127.0.0.1:{told.exporter.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            assert ANSWERED in await reply.text()
    assert told.exporter.port is None
    assert ANSWERED in path.read_text()


async def test_an_engine_whose_metrics_can_not_be_told_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"telemetry\.prometheus_file"):
        async with engine(telemetry={"prometheus_file": str(tmp_path / "missing" / "engine.prom")}):
            pass


@pytest.fixture
def traced(exported: Any) -> Iterator[Engine]:
    with engine(telemetry={"otel": True}) as told:
        yield told


def test_a_plain_caller_on_another_thread_is_the_parent_of_its_request(traced: Engine, exported: Any) -> None:
    from opentelemetry import trace

    with trace.get_tracer("caller").start_as_current_span("caller") as caller:
        traced.sync.submit(chat(id="a"))
        list(traced.sync.stream(chat(id="b")))
        list(traced.sync.map([chat(id="c")]))
    finished = exported.get_finished_spans()
    roots = [span for span in finished if "engine.request.id" in span.attributes]
    assert {span.attributes["engine.request.id"] for span in roots} == {"a", "b", "c"}
    assert {span.parent.span_id for span in roots} == {caller.get_span_context().span_id}


async def test_a_streams_span_ends_with_the_stream(exported: Any) -> None:
    async with engine({"latency_s": 0.01, "token_s": 0.002}, telemetry={"otel": True}) as told:
        _ = [chunk async for chunk in told.stream(chat())]
    root, (attempt,) = spans(exported)
    assert attempt.attributes is not None
    first = attempt.attributes["gen_ai.response.time_to_first_chunk"]
    assert isinstance(first, float)
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert root.end_time is not None
    assert 0.01 <= first < (attempt.end_time - attempt.start_time) / 1e9
    assert root.end_time >= attempt.end_time - 1_000_000
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 8
