"""Every wire of the simulated server, as our own engine finds it: through the whole engine, over a socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import cache
from typing import Any

import httpx
import pytest

from engine import Engine, InferenceError, Request, Result
from engine.config.compose import compose
from engine.schemas import RunSpec
from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.server import SimulatedServer
from engine.simulation.wire import WIRES

WORDS = "[simulated] word2 word3 word4 word5 word6 word7 word8"
CHAT = Request("chat", {"messages": [{"role": "user", "content": "hello there"}]})
COMPLETION = Request("completion", {"prompt": "hello there"})
EMBEDDING = Request("embedding", {"input": ["one", "two"]})
NATIVE = Request("embedding", {"input": ["one", "two"], "truncate": True})
"""An embedding that only TEI's own path can carry."""
ANSWERED = [
    ("anthropic", CHAT),
    ("gemini", CHAT),
    ("gemini", EMBEDDING),
    ("ollama", CHAT),
    ("ollama", COMPLETION),
    ("ollama", EMBEDDING),
    ("tgi", CHAT),
    ("tgi", COMPLETION),
    ("tei", EMBEDDING),
    ("tei", NATIVE),
    ("kserve", EMBEDDING),
    ("opea", CHAT),
]
STREAMED = [(wire, request) for wire, request in ANSWERED if request.task != "embedding"]
OWN = [("anthropic", CHAT), ("gemini", CHAT), ("ollama", CHAT), ("tgi", COMPLETION), ("tei", NATIVE)]
"""One path of each wire that is its own."""
BOTH = [*OWN, ("kserve", EMBEDDING)]
TEXTS = [(wire, request) for wire, request in OWN if request.task != "embedding"]
ONE_TRY = ["policy=off", "policy/timeout=default", "policy.timeout.first_token_s=1.0", "policy.timeout.attempt_s=1.0"]
pytestmark = pytest.mark.slow
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OLLAMA_API_KEY", "HF_TOKEN", "KSERVE_API_KEY")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "sim_1")


@cache
def said(wire: str) -> RunSpec:
    return compose([f"provider={WIRES[wire][0]}", "model=remote", "model.name=simulated", *ONE_TRY]).spec


def served(**spec: Any) -> SimulatedServer:
    return SimulatedServer(SimulatedProviderSpec(kind="simulated", **spec))


def engine_of(wire: str, server: SimulatedServer) -> Engine:
    remote = said(wire).provider.model_copy(update={"base_url": server.url + WIRES[wire][1]})
    return Engine(said(wire).model_copy(update={"provider": remote}))


async def ask(wire: str, request: Request, **spec: Any) -> Result:
    async with served(**spec) as server, engine_of(wire, server) as engine:
        return await engine.submit(request)


async def failure(wire: str, request: Request, **fault: Any) -> InferenceError:
    error = (await ask(wire, request, faults=[fault])).error
    assert error is not None
    return error


async def stream(wire: str, request: Request, **spec: Any) -> tuple[str, str | None, str | None]:
    """The text of a stream, why it ended, and the word of what broke it."""
    text, reason = "", None
    async with served(**spec) as server, engine_of(wire, server) as engine:
        try:
            async for chunk in engine.stream(request):
                for choice in chunk.body["choices"]:
                    text += choice.get("text") or choice.get("delta", {}).get("content") or ""
                    reason = choice.get("finish_reason") or reason
        except InferenceError as error:
            return text, reason, error.kind
    return text, reason, None


@pytest.mark.parametrize(("wire", "request_"), ANSWERED)
async def test_a_whole_answer_comes_over_every_wire(wire: str, request_: Request) -> None:
    body = (await ask(wire, request_, dimensions=3)).body
    assert body is not None
    if request_.task == "embedding":
        vectors = [item["embedding"] for item in body["data"]]
        assert [len(vector) for vector in vectors] == [3, 3]
        assert vectors[0] != vectors[1]
    else:
        choice = body["choices"][0]
        assert (choice.get("text") or choice["message"]["content"]) == WORDS
        assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("wire", ["openai", "tei"])
async def test_a_ranking_comes_over_every_wire_that_has_one(wire: str) -> None:
    request = Request("rerank", {"query": "red apple", "documents": ["a pear", "a red apple"], "top_n": 1})
    body = (await ask(wire, request)).body
    assert body is not None
    assert [(each["index"], each["relevance_score"]) for each in body["results"]] == [(1, 1.0)]


@pytest.mark.parametrize("wire", ["anthropic", "gemini"])
async def test_a_count_of_tokens_comes_over_every_wire_that_has_one(wire: str) -> None:
    result = await ask(wire, Request("token-count", CHAT.body))
    assert result.body is not None
    assert (result.body["object"], result.body["input_tokens"]) == ("token-count", 2)


@pytest.mark.parametrize(("wire", "request_"), STREAMED)
async def test_a_stream_comes_over_every_wire_that_has_one(wire: str, request_: Request) -> None:
    assert await stream(wire, request_) == (WORDS, "stop", None)


@pytest.mark.parametrize(("wire", "request_"), [each for each in STREAMED if each != ("tgi", COMPLETION)])
async def test_the_tokens_are_counted_over_every_wire(wire: str, request_: Request) -> None:
    usage = (await ask(wire, request_)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (2, 8)


@pytest.mark.parametrize("hint", ["retry_after", "retry_after_float", "retry_after_ms", "message"])
@pytest.mark.parametrize(("wire", "request_"), BOTH)
async def test_a_refusal_with_429_says_when_to_come_back(wire: str, request_: Request, hint: str) -> None:
    error = await failure(wire, request_, kind="throttled", hint=hint, retry_after_s=61.2345)
    # The servers of Hugging Face have one word for both.
    assert error.kind == ("overloaded" if wire in ("tgi", "tei") else "throttled")
    assert error.status == 429
    assert error.retry_after_s == (62.0 if hint == "retry_after" else 61.235)


async def test_anthropic_has_a_hint_of_its_own() -> None:
    error = await failure("anthropic", CHAT, kind="throttled", hint="anthropic", retry_after_s=61)
    assert error.retry_after_s == pytest.approx(61, abs=2)


async def test_gemini_has_a_hint_of_its_own() -> None:
    error = await failure("gemini", CHAT, kind="throttled", hint="gemini", retry_after_s=61.25)
    assert error.retry_after_s == 61.25


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"kind": "quota_exhausted"}, "quota_exhausted"),
        ({"kind": "auth"}, "auth"),
        ({"kind": "auth", "status": 403}, "auth"),
        ({"kind": "invalid_request"}, "invalid_request"),
        ({"kind": "too_long"}, "too_long"),
        ({"kind": "content_filtered"}, "content_filtered"),
        ({"kind": "server"}, "server"),
        ({"kind": "server", "status": 520}, "server"),
        ({"kind": "overloaded"}, "overloaded"),
        ({"kind": "timeout"}, "timeout"),
        ({"kind": "connect"}, "connect"),
        ({"kind": "error_in_200", "status": 500}, "server"),
        ({"kind": "truncated"}, "truncated"),
        ({"kind": "malformed"}, "malformed"),
    ],
)
@pytest.mark.parametrize(("wire", "request_"), BOTH)
async def test_a_fault_has_its_word_on_every_wire(
    wire: str, request_: Request, fault: dict[str, Any], word: str
) -> None:
    assert (await failure(wire, request_, **fault)).kind == word


@pytest.mark.parametrize(
    ("wire", "kind", "status"),
    [
        ("anthropic", "overloaded", 529),
        ("anthropic", "server", 500),
        ("anthropic", "quota_exhausted", 402),
        ("gemini", "server", 500),
        ("gemini", "content_filtered", 200),
        ("ollama", "server", 500),
        ("tgi", "server", 424),
        ("tgi", "invalid_request", 422),
        ("tei", "overloaded", 429),
    ],
)
async def test_a_refusal_has_the_status_of_its_wire(wire: str, kind: str, status: int) -> None:
    assert (await failure(wire, dict(OWN)[wire], kind=kind)).status == status


@pytest.mark.parametrize(("wire", "request_"), BOTH)
async def test_silence_is_a_timeout_on_every_wire(wire: str, request_: Request) -> None:
    assert (await failure(wire, request_, kind="silent")).kind == "timeout"


@pytest.mark.parametrize(
    ("fault", "word", "pieces"),
    [
        ({"kind": "truncated", "at": 0}, "truncated", 0),
        ({"kind": "truncated", "at": 0.5}, "truncated", 4),
        ({"kind": "truncated", "at": 1}, "truncated", 8),
        ({"kind": "malformed", "at": 0}, "malformed", 0),
        ({"kind": "malformed", "at": 0.5}, "truncated", 4),
        ({"kind": "unterminated"}, "truncated", 8),
        ({"kind": "server"}, "server", 0),
        ({"kind": "error_in_200", "status": 500}, "server", 0),
    ],
)
@pytest.mark.parametrize(("wire", "request_"), TEXTS)
async def test_a_stream_breaks_where_and_as_it_should(
    wire: str, request_: Request, fault: dict[str, Any], word: str, pieces: int
) -> None:
    text, reason, found = await stream(wire, request_, faults=[fault])
    assert (len(text.split()), reason, found) == (pieces, None, word)


@pytest.mark.parametrize(("wire", "request_"), BOTH)
async def test_a_key_that_is_not_known_is_refused_on_every_wire(
    wire: str, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await ask(wire, request_, keys=2)).error is None
    for name in KEYS:
        monkeypatch.setenv(name, "sim_9")
    error = (await ask(wire, request_, keys=2)).error
    assert error is not None
    assert error.kind == "auth"


@pytest.mark.parametrize(("wire", "request_"), TEXTS)
async def test_an_answer_that_was_begun_is_gone_on_with_on_every_wire(wire: str, request_: Request) -> None:
    begun = "[simulated] word2 word3"
    body = dict(request_.body)
    if request_.task == "chat":
        body["messages"] = [*body["messages"], {"role": "assistant", "content": begun}]
    else:
        body["prompt"] += " " + begun
    text, _, word = await stream(wire, Request(request_.task, body))
    assert word is None
    assert begun + text == WORDS


async def test_a_path_that_several_wires_have_is_openais_for_any_key() -> None:
    async with served(keys=1) as server, httpx.AsyncClient() as client:
        pages = [
            await client.get(f"{server.url}/v1/models", headers=headers)
            for headers in ({"x-api-key": "sim_1"}, {"x-goog-api-key": "sim_1"}, {"authorization": "Bearer sim_1"}, {})
        ]
    assert [page.status_code for page in pages] == [200, 200, 200, 401]
    assert pages[0].json()["data"][0]["object"] == "model"


async def test_a_query_behind_a_path_does_no_harm() -> None:
    async with served() as server, httpx.AsyncClient() as client:
        reply = await client.post(f"{server.url}/v1/chat/completions?api-version=2024-10-21", json=CHAT.body)
    assert reply.json()["choices"][0]["message"]["content"] == WORDS


async def test_anthropic_says_what_is_left_of_its_limits_in_its_own_headers() -> None:
    body = {**CHAT.body, "model": "m", "max_tokens": 50}
    async with served(capacity={"requests_per_min": 60}) as server, httpx.AsyncClient() as client:
        headers = (await client.post(f"{server.url}/v1/messages", json=body)).headers
    assert headers["anthropic-ratelimit-requests-remaining"] == "59"
    assert headers["request-id"] == "simulated-1"
    assert not [name for name in headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("wire", "word"),
    [
        ("anthropic", "overloaded"),
        ("gemini", "overloaded"),
        ("ollama", "server"),
        ("tgi", "overloaded"),
        ("tei", "overloaded"),
        ("kserve", "server"),
    ],
)
async def test_an_error_that_looks_like_a_success_says_what_its_wire_can(wire: str, word: str) -> None:
    assert (await failure(wire, dict(BOTH)[wire], kind="error_in_200", status=503)).kind == word


@pytest.mark.parametrize("wire", WIRES)
async def test_every_wire_lists_the_model(wire: str) -> None:
    # OPEA's services say that they are well, and not which model they have.
    expected = "it answers" if wire == "opea" else "has simulated (1 model)"
    async with served() as server, engine_of(wire, server) as engine:
        assert expected in await engine.pipeline.target_chains[0].executor.check()


def test_each_line_that_the_server_prints_makes_a_client_of_it() -> None:
    command = [sys.executable, "-u", "-m", "engine", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(1 + len(WIRES))][1:]
            found = {wire: asyncio.run(_answered(words.split())) for wire, _, words in map(_parted, lines)}
        finally:
            process.kill()
    assert found == dict.fromkeys(WIRES)


def _parted(line: str) -> tuple[str, str, str]:
    return line.strip().partition(": ")


async def _answered(words: list[str]) -> InferenceError | None:
    async with Engine.compose([*words, *ONE_TRY]) as engine:
        request = CHAT if "chat" in engine.pipeline.target_chains[0].executor.tasks else EMBEDDING
        return (await engine.submit(request)).error
