"""What requests and runs cost: over every attempt, to the picodollar, through the whole chain."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Engine, InferenceError, Request, Result
from engine.cli.main import main
from engine.config.compose import compose
from engine.core.errors import ServerFailed
from engine.core.prices import PICO
from engine.core.virtual_time import VirtualClock, run
from engine.dialects.server import ClientCall
from engine.schemas import RunSpec, TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.policy import HedgeSpec, PolicySpec, QueueSpec, RetrySpec
from engine.schemas.prices import PriceSpec
from engine.schemas.simulated import FaultSpec, SimulatedProviderSpec
from engine.schemas.workload import SyntheticWorkloadSpec
from engine.telemetry.prometheus import text
from tests.servers.dialect_server import DialectServer
from tests.servers.replies import completion, usage_chunk
from tests.servers.scripted import Exchange, ScriptedServer

PRICE = PriceSpec(input=0.15, output=0.6)
CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
QUICK = ("policy/retry=default", "policy.retry.initial_delay_s=0.001", "policy/rate_limit=off")


def picos(result: Result) -> int:
    """The exact sum of what the attempts cost."""
    return sum(round(attempt.cost * PICO) for attempt in result.engine.attempts if attempt.cost is not None)


# -- over all attempts, in virtual time -------------------------------------------------------------------------------


def simulated(name: str, price: PriceSpec | None, *faults: FaultSpec, **fields: Any) -> TargetSpec:
    provider = SimulatedProviderSpec(kind="simulated", name=name, price=price, faults=faults, **fields)
    return TargetSpec(provider=provider, model=ModelSpec(name="m"), hardware=AutoHardwareSpec(kind="auto"))


def spec_of(policy: PolicySpec, *targets: TargetSpec, seed: int = 0) -> RunSpec:
    first, *others = targets
    return RunSpec(
        provider=first.provider,
        model=first.model,
        hardware=first.hardware,
        fallbacks=tuple(others),
        policy=policy,
        workload=SyntheticWorkloadSpec(kind="synthetic"),
        seed=seed,
    )


RETRIED = PolicySpec(retry=RetrySpec(max_retries=2, initial_delay_s=0.1), queue=QueueSpec(concurrency=8))
HEDGED = PolicySpec(
    hedge=HedgeSpec(enabled=True, after_s=0.3, percentile=None, max_hedges=2), queue=QueueSpec(concurrency=8)
)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0, 0.8),
    kind=st.sampled_from(["server", "throttled", "truncated", "timeout"]),
    hedged=st.booleans(),
    stream=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_requests_cost_is_the_sum_of_its_attempts(
    rate: float, kind: Any, hedged: bool, stream: bool, seed: int
) -> None:
    flaky = simulated(
        "one",
        PRICE,
        failure_rate=rate,
        failure_kind=kind,
        latency_s=0.5,
        latency_distribution="lognormal",
        token_s=0.01,
    )
    spare = simulated("two", PriceSpec(input=3, output=15, cached_input=0.3), latency_s=0.2)

    async def scenario(clock: VirtualClock) -> tuple[list[Result], dict[str, Any]]:
        results: list[Result] = []
        async with Engine(spec_of(HEDGED if hedged else RETRIED, flaky, spare, seed=seed), clock=clock) as engine:
            engine.observers.append(lambda _, result: results.append(result))
            await asyncio.gather(*(ask(engine, f"r{number}", stream) for number in range(12)))
            return results, engine.report()

    results, report = run(scenario)
    assert len(results) == 12
    for result in results:
        spent = [attempt for attempt in result.engine.attempts if attempt.usage is not None]
        assert all(attempt.cost is not None for attempt in spent)
        if spent:
            assert result.engine.cost is not None
            assert round(result.engine.cost * PICO) == picos(result)
        assert result.engine.cost_estimated == any(attempt.usage.estimated for attempt in spent if attempt.usage)
    assert round((report["cost"] or 0.0) * PICO) == sum(picos(result) for result in results)
    assert report["cost_unknown"] == 0
    assert sum(round((view["cost"] or 0) * PICO) for view in report["targets"].values()) == sum(map(picos, results))


async def ask(engine: Engine, id: str, stream: bool) -> None:
    request = Request("chat", dict(CHAT), id=id)
    if not stream:
        await engine.submit(request)
        return
    try:
        async for _ in engine.stream(request):
            pass
    except InferenceError:
        return


def test_a_request_with_an_attempt_of_unknown_cost_has_none() -> None:
    """The first target cuts its stream after it has used something, and nobody knows what that costs."""
    cuts = simulated("one", None, FaultSpec(kind="truncated", at=0.5))
    spec = spec_of(PolicySpec(retry=RetrySpec(max_retries=0)), cuts, simulated("two", PRICE))

    async def scenario(clock: VirtualClock) -> tuple[list[Result], dict[str, Any]]:
        results: list[Result] = []
        async with Engine(spec, clock=clock) as engine:
            engine.observers.append(lambda _, result: results.append(result))
            await ask(engine, "a", stream=True)
            return results, engine.report()

    (result,), report = run(scenario)
    assert [attempt.target for attempt in result.engine.attempts] == ["one/m", "two/m"]
    assert result.engine.attempts[1].cost is not None
    assert result.engine.cost is None
    assert (report["cost"], report["cost_unknown"]) == (result.engine.attempts[1].cost, 1)
    assert report["targets"]["one/m"]["attempts_cost_unknown"] == 1


def test_an_attempt_that_was_refused_costs_nothing() -> None:
    spec = spec_of(PolicySpec(retry=RetrySpec(max_retries=0)), simulated("one", PRICE, FaultSpec(kind="throttled")))

    async def scenario(clock: VirtualClock) -> tuple[Result, dict[str, Any]]:
        async with Engine(spec, clock=clock) as engine:
            return await engine.submit(Request("chat", dict(CHAT))), engine.report()

    result, report = run(scenario)
    assert (result.ok, result.engine.cost, report["cost"], report["cost_unknown"]) == (False, None, None, 0)


# -- over a socket ----------------------------------------------------------------------------------------------------


def remote(url: str, dialect: str = "openai", *more: str) -> RunSpec:
    path = "" if dialect == "anthropic" else "/v1"
    return compose(
        [
            f"provider={'claude' if dialect == 'anthropic' else 'vllm'}",
            f"provider.base_url={url}{path}",
            "model=remote",
            "model.name=m",
            "provider.price.input=3",
            "provider.price.output=15",
            "provider.price.cached_input=0.3",
            "provider.price.cache_write=3.75",
            *QUICK,
            *more,
        ]
    ).spec


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setenv("VLLM_API_KEY", "sk-test-0123456789abcdef")


@pytest.mark.slow
async def test_an_answer_over_a_socket_costs_what_its_usage_says() -> None:
    async def answer(call: ClientCall) -> dict[str, Any]:
        details = {"cached_tokens": 600, "cache_write_tokens": 200}
        return completion(
            usage={"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": details}, model="m"
        )

    for dialect, cost in (("openai", 0.00228), ("anthropic", 0.00228)):
        async with DialectServer(dialect, answer) as server, Engine(remote(server.url, dialect)) as engine:
            result = await engine.submit(Request("chat", {**CHAT, "max_tokens": 99}))
        assert result.ok, result.error
        # 200 plain, 600 read, 200 written, 50 out.
        assert result.engine.cost == pytest.approx(cost, abs=1e-12), dialect
        assert result.engine.attempts[0].as_dict()["usage"] == {
            "input_tokens": 1000, "output_tokens": 50, "cached_tokens": 600, "cache_write_tokens": 200,
        }  # fmt: skip


@pytest.mark.slow
async def test_a_stream_that_is_cut_and_begun_again_costs_both_times() -> None:
    async def serve(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        await exchange.start()
        for body in ({"choices": [{"index": 0, "delta": {"content": "Pa"}, "finish_reason": None}]},) * 2:
            await exchange.event(body)
        if calls > 1:
            await exchange.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            await exchange.event(usage_chunk(7, 2))
            await exchange.event(b"[DONE]")
        await exchange.end()

    calls = 0
    seen: list[Result] = []
    async with ScriptedServer(serve) as server:
        spec = remote(server.url.removesuffix("/v1"), "openai", "policy/stream=restart")
        async with Engine(spec) as engine:
            engine.observers.append(lambda _, result: seen.append(result))
            await ask(engine, "a", stream=True)
            exposed = text(engine)
    (result,) = seen
    cut, whole = result.engine.attempts
    assert (cut.outcome, whole.outcome) == ("truncated", "ok")
    assert cut.usage is not None
    assert cut.usage.estimated
    assert cut.cost == pytest.approx((cut.usage.input_tokens * 3 + 2 * 15) / 1e6, abs=1e-12)
    assert whole.cost == pytest.approx((7 * 3 + 2 * 15) / 1e6, abs=1e-12)
    assert round((result.engine.cost or 0) * PICO) == picos(result)
    assert result.engine.as_dict()["cost_estimated"] is True
    assert "engine_cost_estimated_dollars_total" in exposed


@pytest.mark.slow
async def test_what_the_provider_says_of_the_cost_counts() -> None:
    async def serve(exchange: Exchange) -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "cost": 0.25}
        await exchange.reply(200, completion(usage=usage))

    async with ScriptedServer(serve) as server, Engine(remote(server.url.removesuffix("/v1"))) as engine:
        result = await engine.submit(Request("chat", dict(CHAT)))
    assert (result.engine.cost, result.engine.attempts[0].cost) == (0.25, 0.25)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_simulated_runs_report_has_the_exact_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["provider=simulated", "workload=synthetic", "workload.duration_s=60", "provider.failure_rate=0.1"]
    words += ["provider.price.input=0.15", "provider.price.output=0.6", f"output.dir={tmp_path / 'run'}"]
    assert main(words) in (0, 3)
    said = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run/metrics.json").read_bytes())
    tokens = metrics["tokens"]
    exact = Fraction(15, 100) * tokens["input"] + Fraction(6, 10) * tokens["output"]
    assert metrics["cost"] == float(exact / 1_000_000)
    assert metrics["cost"] == metrics["targets"]["simulated/simulated"]["cost"]
    lines = [json.loads(line) for line in (tmp_path / "run/results.jsonl").read_text("utf-8").splitlines()]
    known = [line["engine"]["cost"] for line in lines if line["engine"]["cost"] is not None]
    assert sum(round(cost * PICO) for cost in known) == round(metrics["cost"] * PICO)
    assert f"cost: ${metrics['cost']:.4f}" in said
    assert f"| Cost | ${metrics['cost']:.4f} |" in (tmp_path / "run/report.md").read_text("utf-8")


@pytest.mark.slow
async def test_a_run_over_sockets_says_at_least_what_is_known(tmp_path: Path) -> None:
    """Rows name their own models; of one of them no price is known, and one row is refused."""

    async def answer(call: ClientCall) -> dict[str, Any]:
        if call.body["messages"][0]["content"] == "fail":
            raise ServerFailed("boom")
        return completion(usage={"prompt_tokens": 1000, "completion_tokens": 100}, model=call.model)

    rows = [{"custom_id": f"c{n}", "prompt": "hello", "model": "m" if n % 2 else "other"} for n in range(6)]
    rows.append({"custom_id": "bad", "prompt": "fail", "model": "m"})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    async with DialectServer("openai", answer) as server:
        words = ["provider=vllm", f"provider.base_url={server.url}/v1", "model=remote", "model.name=m", *QUICK]
        words += ["workload=jsonl", f"workload.path={tmp_path / 'rows.jsonl'}", f"output.dir={tmp_path / 'run'}"]
        words += ["provider.price.input=3", "provider.price.output=15", "policy.retry.max_retries=1"]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine", *words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, said = await child.communicate()
    assert child.returncode == 3, said
    metrics = json.loads((tmp_path / "run/metrics.json").read_bytes())
    assert (metrics["cost"], metrics["cost_unknown"]) == (0.0135, 3)
    assert "| Cost | at least $0.0135 (3 requests unknown) |" in (tmp_path / "run/report.md").read_text("utf-8")
