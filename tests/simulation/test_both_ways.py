"""Each fault means the same to a caller in the process and over a socket: through the whole engine, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import pytest

from engine import Engine, InferenceError, Request
from engine.config.compose import compose
from engine.core.virtual_time import VirtualClock, run
from engine.schemas import RunSpec
from engine.schemas.simulated import STATUSES, SimulatedProviderSpec
from engine.simulation.server import SimulatedServer

T = TypeVar("T")
Fault = dict[str, Any]
ONE_TRY = [
    "policy=off",
    "policy/timeout=default",
    "policy.timeout.attempt_s=1.0",
    "policy.timeout.first_token_s=1.0",
    "policy.timeout.idle_s=1.0",
]
REFUSALS = [(kind, status) for kind, statuses in STATUSES.items() if kind != "error_in_200" for status in statuses]
IN_200 = {500: "server", 502: "server", 503: "overloaded", 529: "overloaded", 429: "throttled"}
WHOLE = [
    *(({"kind": kind, "status": status}, kind) for kind, status in REFUSALS),
    *(({"kind": "error_in_200", "status": status}, word) for status, word in IN_200.items()),
    ({"kind": "connect"}, "connect"),
    ({"kind": "silent"}, "timeout"),
    ({"kind": "slow", "delay_s": 60}, "timeout"),
    ({"kind": "stall", "delay_s": 60}, "timeout"),
    ({"kind": "truncated"}, "truncated"),
    ({"kind": "malformed"}, "malformed"),
    ({"kind": "unterminated"}, None),
]
STREAMED = [
    ({"kind": "truncated", "at": 0}, "truncated", 0),
    ({"kind": "truncated", "at": 0.67}, "truncated", 5),
    ({"kind": "truncated", "at": 1}, "truncated", 8),
    ({"kind": "malformed", "at": 0}, "malformed", 0),
    ({"kind": "malformed", "at": 0.25}, "truncated", 2),
    ({"kind": "unterminated"}, "truncated", 8),
    ({"kind": "stall", "delay_s": 60, "at": 0.5}, "truncated", 4),
    ({"kind": "slow", "delay_s": 60}, "timeout", 0),
    ({"kind": "silent"}, "timeout", 0),
    ({"kind": "connect"}, "connect", 0),
    ({"kind": "server"}, "server", 0),
    ({"kind": "error_in_200", "status": 503}, "overloaded", 0),
    ({"kind": "throttled"}, "throttled", 0),
]
pytestmark = pytest.mark.slow


async def ask(engine: Engine) -> InferenceError | None:
    return (await engine.submit(question())).error


async def stream(engine: Engine) -> tuple[str | None, int]:
    """How the stream ended, and how many pieces of the answer came before."""
    pieces = 0
    try:
        async for chunk in engine.stream(question()):
            pieces += bool(chunk.body["choices"] and chunk.body["choices"][0]["delta"].get("content"))
    except InferenceError as error:
        return error.kind, pieces
    return None, pieces


def both_ways(act: Callable[[Engine], Coroutine[Any, Any, T]], **provider: Any) -> tuple[T, T]:
    """What `act` finds in the process, in virtual time, and over a socket, in real time."""
    simulated = SimulatedProviderSpec(kind="simulated", **provider)

    async def inside(clock: VirtualClock) -> T:
        async with Engine(said("simulated").model_copy(update={"provider": simulated}), clock=clock) as engine:
            return await act(engine)

    async def outside() -> T:
        async with SimulatedServer(simulated) as server:
            remote = said("openai").provider.model_copy(update={"base_url": f"{server.url}/v1"})
            async with Engine(said("openai").model_copy(update={"provider": remote})) as engine:
                return await act(engine)

    return run(inside), asyncio.run(outside())


@cache
def said(provider: str) -> RunSpec:
    return compose([f"provider={provider}", "model=remote", "model.name=simulated", *ONE_TRY]).spec


def question() -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": "hello there"}]})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sim_1")


@pytest.mark.parametrize(("fault", "word"), WHOLE)
def test_a_fault_has_its_word_both_ways(fault: Fault, word: str | None) -> None:
    inside, outside = both_ways(ask, faults=[fault])
    assert [error and error.kind for error in (inside, outside)] == [word, word]


@pytest.mark.parametrize(("kind", "status"), [*REFUSALS, *(("error_in_200", status) for status in IN_200)])
def test_a_refusal_has_its_status_and_code_both_ways(kind: str, status: int) -> None:
    inside, outside = both_ways(ask, faults=[{"kind": kind, "status": status}])
    assert inside is not None
    assert outside is not None
    assert inside.status == outside.status == status
    assert inside.code == outside.code
    assert "simulated" in inside.message
    assert "simulated" in outside.message


@pytest.mark.parametrize("hint", ["retry_after", "retry_after_float", "retry_after_ms", "x_ratelimit", "message"])
@pytest.mark.parametrize("kind", ["throttled", "quota_exhausted"])
def test_a_hint_says_the_same_both_ways(kind: str, hint: str) -> None:
    fault = {"kind": kind, "hint": hint, "retry_after_s": 61.2345}
    inside, outside = both_ways(ask, faults=[fault])
    assert inside is not None
    assert outside is not None
    assert inside.retry_after_s == outside.retry_after_s == (62.0 if hint == "retry_after" else 61.235)


@pytest.mark.parametrize(("fault", "word", "pieces"), STREAMED)
def test_a_stream_breaks_at_the_same_place_both_ways(fault: Fault, word: str, pieces: int) -> None:
    assert both_ways(stream, faults=[fault]) == ((word, pieces), (word, pieces))


def test_a_refusal_of_the_rate_limit_says_when_to_come_back_both_ways() -> None:
    async def twice(engine: Engine) -> InferenceError | None:
        await engine.submit(question())
        return await ask(engine)

    for error in both_ways(twice, capacity={"requests_per_min": 1}):
        assert error is not None
        assert error.kind == "throttled"
        assert error.retry_after_s is not None
        assert 59 < error.retry_after_s <= 60


def test_an_unknown_key_is_refused_over_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sim_9")
    inside, outside = both_ways(ask, keys=2)
    assert inside is None
    assert outside is not None
    assert outside.kind == "auth"


@pytest.mark.parametrize("task", ["chat", "completion", "embedding"])
def test_the_answers_are_the_same_both_ways(task: str) -> None:
    body = {"chat": {"messages": [{"role": "user", "content": "one two"}]}}.get(task, {})
    body |= {"completion": {"prompt": "one two", "max_tokens": 3}, "embedding": {"input": ["one", "two"]}}.get(task, {})

    async def answer(engine: Engine) -> Any:
        result = await engine.submit(Request(task, body))
        assert result.body is not None
        assert result.usage is not None
        return {name: result.body[name] for name in result.body if name not in ("id", "created")}, result.usage

    inside, outside = both_ways(answer)
    assert inside == outside
    assert inside[1].input_tokens == 2


def test_a_cut_answer_is_finished_elsewhere_word_by_word() -> None:
    async def outside() -> str:
        cut = SimulatedProviderSpec.model_validate({"kind": "simulated", "faults": [{"kind": "truncated"}]})
        async with SimulatedServer(cut) as first, SimulatedServer(SimulatedProviderSpec(kind="simulated")) as second:
            remote = said("openai").provider
            primary = remote.model_copy(update={"base_url": f"{first.url}/v1"})
            spare = remote.model_copy(update={"base_url": f"{second.url}/v1", "name": "spare", "prefill": "assistant"})
            policy = compose(["provider=simulated", "policy/stream=continue", *ONE_TRY]).spec.policy
            spec = said("openai").model_copy(update={"provider": primary, "policy": policy})
            fallback = spec.targets[0].model_copy(update={"provider": spare})
            async with Engine(spec.model_copy(update={"fallbacks": (fallback,)})) as engine:
                chunks = [chunk async for chunk in engine.stream(question())]
        return "".join(chunk.body["choices"][0]["delta"].get("content") or "" for chunk in chunks)

    assert asyncio.run(outside()) == "[simulated] word2 word3 word4 word5 word6 word7 word8"
