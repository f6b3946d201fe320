"""The whole chain of an engine with every policy on: whenever a caller leaves, nothing stays held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine import Engine, InferenceError, Request
from engine.core.request import Result
from engine.core.virtual_time import VirtualClock, VirtualTimeLoop, run
from engine.executors.simulated import SimulatedExecutor
from engine.schemas import RunSpec, TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.policy import (
    BatchSpec,
    BreakerSpec,
    BudgetSpec,
    CacheSpec,
    ConcurrencySpec,
    DeadlineSpec,
    HedgeSpec,
    PolicySpec,
    QueueSpec,
    RateLimitSpec,
    RetrySpec,
    RouteSpec,
    StreamSpec,
    TimeoutSpec,
)
from engine.schemas.simulated import SimulatedProviderSpec
from engine.schemas.workload import SyntheticWorkloadSpec

EVERYTHING = PolicySpec(
    deadline=DeadlineSpec(total_s=120.0, starts="submit"),
    cache=CacheSpec(enabled=True, only="all", single_flight=True),
    stream=StreamSpec(max_rescues=2),
    budget=BudgetSpec(max_attempts=10),
    retry=RetrySpec(max_retries=2, initial_delay_s=1.0),
    queue=QueueSpec(concurrency=3, size=2, on_full="evict_lowest"),
    route=RouteSpec(key_concurrency=1),
    rate_limit=RateLimitSpec(enabled=True, requests_per_min=60, output_tokens_per_min=60_000, burst_s=2, per="target"),
    concurrency=ConcurrencySpec(enabled=True, initial=1),
    breaker=BreakerSpec(min_calls=2, window=4, open_s=3.0, probes=1, slow_after_s=30.0),
    timeout=TimeoutSpec(attempt_s=8.0, first_token_s=6.0, idle_s=4.0),
    batch=BatchSpec(max_size=2, max_wait_s=0.05),
)
"""Every policy is on, and so tight that there is something to wait for at each stage."""
HEDGED = EVERYTHING.model_copy(update={"hedge": HedgeSpec(enabled=True, after_s=0.5, percentile=None, max_hedges=2)})
OPEN_HANDED = EVERYTHING.model_copy(
    update={
        "rate_limit": RateLimitSpec(enabled=True, requests_per_min=6000),
        "concurrency": ConcurrencySpec(enabled=True, initial=8),
        "hedge": HEDGED.hedge,
    }
)
"""Nothing but calls to wait for, so that several are under way at once."""
CROWD = EVERYTHING.model_copy(
    update={
        "queue": QueueSpec(concurrency=16),
        "route": RouteSpec(key_concurrency=8),
        "rate_limit": RateLimitSpec(enabled=True, requests_per_min=600_000),
        "concurrency": ConcurrencySpec(enabled=True, initial=4),
    }
)
"""Room for a crowd."""


@dataclass(frozen=True)
class Scene:
    """What the providers do."""

    name: str
    primary: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)
    policy: PolicySpec = EVERYTHING
    task: str = "chat"


def fault(kind: str, **fields: Any) -> dict[str, Any]:
    return {"faults": [{"kind": kind, **fields}]}


SCENES = [
    Scene("success"),
    Scene("embeddings", task="embedding"),
    Scene("retry", fault("server", to_s=0.8)),
    Scene("throttled", fault("throttled", to_s=3.0, hint="retry_after", retry_after_s=2)),
    Scene("revoked key", fault("auth", key="sim_1", from_s=0.5)),
    Scene("slow", fault("slow", delay_s=20.0)),
    Scene("fallback", fault("connect", delay_s=0.3)),
    Scene("both down for a while", fault("server", to_s=9.0), fault("overloaded", to_s=9.0)),
    Scene("cut", fault("truncated", at=0.6)),
    Scene("cut twice", fault("truncated", at=0.6), fault("malformed", at=0.3, to_s=4.0)),
    Scene("silent", fault("silent", to_s=5.0)),
    Scene("hedge", {"latency_s": 1.2}, policy=OPEN_HANDED),
    Scene("hedged failures", fault("server", to_s=0.8), policy=HEDGED),
    Scene("hedged embeddings", {"latency_s": 1.2}, policy=OPEN_HANDED, task="embedding"),
    Scene("hedged cuts", fault("truncated", at=0.6), policy=OPEN_HANDED),
]
CASES = [(scene, stream) for scene in SCENES for stream in (False, True) if scene.task == "chat" or not stream]
NAMES = [f"{scene.name}{', a stream' if stream else ''}" for scene, stream in CASES]


def spec_of(scene: Scene) -> RunSpec:
    def provider(name: str, fields: dict[str, Any]) -> SimulatedProviderSpec:
        usual = {"latency_s": 0.2, "token_s": 0.1, "output_tokens": 5, "keys": 2}
        return SimulatedProviderSpec(kind="simulated", name=name, **{**usual, **fields})

    model, hardware = ModelSpec(name="m"), AutoHardwareSpec(kind="auto")
    second = TargetSpec(provider=provider("second", scene.second), model=model, hardware=hardware)
    return RunSpec(
        provider=provider("first", scene.primary),
        model=model,
        hardware=hardware,
        fallbacks=(second,),
        policy=scene.policy,
        workload=SyntheticWorkloadSpec(kind="synthetic"),
    )


def ask(task: str, number: int, priority: str = "normal") -> Request:
    text = f"question {number}"
    body = {"input": text} if task == "embedding" else {"messages": [{"role": "user", "content": text}]}
    return Request(task, body, id=str(number), priority=priority)


def held(engine: Engine) -> dict[str, float]:
    """Whatever any stage, and either provider, still holds for a call."""
    found: dict[str, float] = {}
    for kind in ("queue", "keys", "endpoints", "rate_limit", "concurrency", "breaker", "batch", "cache"):
        for place, thing in engine.resources.items(kind).items():
            name = " ".join(str(part) for part in place)
            for gauge, value in getattr(thing, "gauges", dict)().items():
                if any(word in gauge for word in ("waiting", "active", "in_flight", "under_way")):
                    found[f"{name} {gauge}"] = value
            if kind == "breaker":
                found[f"{name} probes"] = thing._probing
                found[f"{name} calls"] = len(thing._under_way)
            if kind == "rate_limit":
                found |= {f"{name} {unit.name}": unit.capacity - unit.level for unit in thing.units if unit.limit}
    for route in engine.pipeline.target_chains:
        assert isinstance(route.executor, SimulatedExecutor)
        found[f"{route.name} calls"] = route.executor.counters.in_flight
    return {name: value for name, value in found.items() if abs(value) > 1e-6}


class SteppedLoop(VirtualTimeLoop):
    """Counts its turns, and does one thing at the beginning of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.due: tuple[int, Callable[[], object]] | None = None

    def _run_once(self) -> None:
        self.turn += 1
        if self.due is not None and self.turn == self.due[0]:
            self.due[1]()
        super()._run_once()


@dataclass
class Ending:
    """What became of a scene."""

    turns: int
    """Turns of the loop until the one that may leave had its result."""
    victim: str
    others: list[str]
    held: dict[str, float]
    tasks: int


async def outcome(engine: Engine, request: Request, stream: bool) -> str:
    try:
        if stream:
            async for _ in engine.stream(request):
                pass
            return "ok"
        result = await engine.submit(request)
    except InferenceError as error:
        return error.kind
    assert result.id == request.id
    return result.error.kind if result.error else "ok"


def play(scene: Scene, stream: bool, place: int, leave_at: int | None) -> Ending:
    """Six requests at once, the last one equal to the one at `place`, which leaves at the beginning of a turn."""
    loop = SteppedLoop()
    asyncio.set_event_loop(loop)

    async def act() -> Ending:
        async with Engine(spec_of(scene), clock=VirtualClock(loop)) as engine:
            asked = [ask(scene.task, number, "low" if number == place else "normal") for number in range(3)]
            asked += [ask(scene.task, number, "high") for number in (3, 4)] + [ask(scene.task, place)]
            tasks = [loop.create_task(outcome(engine, each, stream)) for each in asked]
            began, victim = loop.turn, tasks.pop(place)
            if leave_at is not None:
                loop.due = began + leave_at, victim.cancel
            ended = [began]
            victim.add_done_callback(lambda _: ended.append(loop.turn))
            await asyncio.wait([victim, *tasks])
            await asyncio.sleep(600.0)  # rates fill up again, circuits may be tried
            left = asyncio.all_tasks() - {asyncio.current_task()}
            fate = "cancelled" if victim.cancelled() else victim.result()
            return Ending(ended[-1] - began, fate, [task.result() for task in tasks], held(engine), len(left))

    try:
        return loop.run_until_complete(act())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def check(scene: Scene, stream: bool, place: int, moments: Callable[[int], range]) -> None:
    """Plays a scene to its end, and then again for every moment at which a caller may leave."""
    whole = play(scene, stream, place, None)
    assert (whole.held, whole.tasks) == ({}, 0)
    for moment in moments(whole.turns):
        ending = play(scene, stream, place, moment)
        assert (ending.held, ending.tasks) == ({}, 0), f"left at turn {moment} of {whole.turns}"
        assert ending.victim in ("cancelled", whole.victim), f"left at turn {moment} of {whole.turns}"
        assert len(ending.others) == 5
        assert "cancelled" not in ending.others


@pytest.mark.parametrize(("scene", "stream"), CASES, ids=NAMES)
def test_at_some_moments_nothing_stays_held(scene: Scene, stream: bool) -> None:
    check(scene, stream, 2, lambda turns: range(2, turns, max(1, turns // 3)))


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 2], ids=["the first one", "a later one"])
@pytest.mark.parametrize(("scene", "stream"), CASES, ids=NAMES)
def test_whenever_a_caller_leaves_nothing_stays_held(scene: Scene, stream: bool, place: int) -> None:
    check(scene, stream, place, lambda turns: range(1, turns + 1))


@pytest.mark.parametrize("chunks", range(7))
@pytest.mark.parametrize("name", ["success", "cut", "hedge", "hedged cuts"])
def test_after_whichever_chunk_a_reader_stops_nothing_stays_held(name: str, chunks: int) -> None:
    (scene,) = [scene for scene in SCENES if scene.name == name]

    async def read(clock: VirtualClock) -> None:
        async with Engine(spec_of(scene), clock=clock) as engine:
            source = engine.stream(ask("chat", 1))
            for _ in range(chunks):
                await anext(source)
            await source.aclose()  # type: ignore[attr-defined]
            await asyncio.sleep(600.0)
            assert held(engine) == {}
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert sum(engine.report()["outcomes"].values()) == min(chunks, 1)

    run(read)


class Answered:
    """Who asked, and what each was answered."""

    def __init__(self) -> None:
        self.results: dict[str, list[Result]] = {}
        self._lock = threading.Lock()

    def add(self, asked: Request, result: Result) -> None:
        with self._lock:
            self.results.setdefault(asked.id or "", []).append(result)


@pytest.mark.slow
def test_a_hundred_threads_and_a_loop_at_once_get_every_answer_once() -> None:
    scene = Scene("crowd", {"latency_s": 0.002, "token_s": 0.0}, policy=CROWD)
    answered, together = Answered(), threading.Barrier(101)
    with Engine(spec_of(scene)) as engine:

        def thread(number: int) -> None:
            together.wait()
            for turn in range(3):
                asked = ask("chat", number * 10 + turn)
                answered.add(asked, engine.sync.submit(asked))
            streamed = ask("chat", number * 10 + 3)
            chunks = list(engine.sync.stream(streamed))
            answered.add(streamed, Result(streamed.id or "", {"chunks": len(chunks)}))

        async def loop() -> None:
            await asyncio.to_thread(together.wait)

            async def one(number: int) -> None:
                asked = ask("chat", number)
                answered.add(asked, await engine.submit(asked))

            await asyncio.gather(*(one(number) for number in range(5000, 5100)))

        threads = [threading.Thread(target=thread, args=(number,)) for number in range(100)]
        for each in threads:
            each.start()
        asyncio.run(loop())
        for each in threads:
            each.join()
        assert len(answered.results) == 500
        assert all(len(results) == 1 for results in answered.results.values())
        assert all(result.id == asked and result.ok for asked, (result,) in answered.results.items())
        report = engine.report()
        still = {name: value for name, value in held(engine).items() if "rate_limit" not in name}
    assert report["outcomes"] == {"ok": 500}
    assert still == {}
