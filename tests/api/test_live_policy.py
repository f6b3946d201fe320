"""Policies that change while an engine runs: sizes, priorities, circuits, keys; from the loop and from any thread."""

from __future__ import annotations

import asyncio

import pytest

from engine import ConfigError, Engine, Request


def question(id: str = "r", **fields: object) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": "hi"}]}, id=id, **fields)  # type: ignore[arg-type]


def simulated(*overrides: str) -> Engine:
    return Engine.compose(["provider=simulated", *overrides])


async def test_more_slots_let_the_waiting_in_at_once() -> None:
    async with simulated("provider.latency_s=0.05", "policy.queue.concurrency=1") as engine:
        tasks = [asyncio.create_task(engine.submit(question(str(n)))) for n in range(10)]
        await asyncio.sleep(0.01)
        assert (engine.policy.queue.active, engine.policy.queue.waiting) == (1, 9)
        engine.policy.queue.concurrency = 10
        assert (engine.policy.queue.active, engine.policy.queue.waiting) == (10, 0)
        assert all(result.ok for result in await asyncio.gather(*tasks))


async def test_a_smaller_size_refuses_newcomers() -> None:
    async with simulated("provider.latency_s=0.05", "policy.queue.concurrency=1") as engine:
        engine.policy.queue.on_full = "reject"
        engine.policy.queue.size = 1
        results = await asyncio.gather(*(engine.submit(question(str(n))) for n in range(4)))
    kinds = [result.error.kind if result.error else "ok" for result in results]
    assert sorted(kinds) == ["ok", "ok", "queue_full", "queue_full"]


async def test_a_waiting_request_can_be_given_another_priority() -> None:
    async with simulated("provider.latency_s=0.02", "policy.queue.concurrency=1") as engine:
        order: list[str] = []
        engine.observers.append(lambda request, result: order.append(result.id))
        tasks = [asyncio.create_task(engine.submit(question(name, priority="low"))) for name in ("a", "b", "c", "d")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.policy.prioritise("d", "high")
        assert not engine.policy.prioritise("nobody", "high")
        await asyncio.gather(*tasks)
    assert order == ["a", "d", "b", "c"]


def test_it_works_from_another_thread() -> None:
    with simulated() as engine:
        engine.policy.queue.concurrency = 3
        assert engine.sync.submit(question()).ok
        assert engine.policy.queue.concurrency == 3


async def test_a_circuit_can_be_opened_and_closed_by_hand() -> None:
    async with simulated("policy.breaker.on_open=fail") as engine:
        engine.policy.breaker.mode = "forced_open"
        refused = await engine.submit(question())
        assert refused.error is not None
        assert refused.error.kind == "circuit_open"
        engine.policy.breaker.mode = "auto"
        engine.policy.breaker.reset()
        assert (await engine.submit(question())).ok
        assert set(engine.policy.breaker.states.values()) == {"closed"}


def test_one_target_can_be_changed_alone() -> None:
    engine = simulated("fallbacks=[{provider: {use: simulated, name: other}}]")
    engine.policy["other/simulated"].queue.size = 5
    assert (engine.policy.queue.size, engine.policy["other/simulated"].queue.size) == (1000, 5)
    with pytest.raises(ConfigError, match="other/simulated"):
        engine.policy["other/simulatd"]


def test_a_value_is_checked_like_configuration() -> None:
    engine = simulated()
    with pytest.raises(ConfigError, match=r"policy\.queue\.concurrency=0"):
        engine.policy.queue.concurrency = 0
    with pytest.raises(ConfigError, match=r"policy\.breaker\.mode"):
        engine.policy.breaker.mode = "ajar"
    with pytest.raises(ConfigError, match="policy/queue"):
        simulated("policy=off").policy.queue.size = 1
