"""Copies of a model behind one queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request
from engine.runtimes.replicas import Replicas, spread_hardware
from engine.schemas.hardware import CpuHardwareSpec, CudaHardwareSpec
from engine.tasks.local_model import Embeddings


class Held:
    """A runtime whose answers wait until they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.device, self.context_length, self.reads_pictures = "test", 8, False
        self.calls = 0

    async def start(self) -> None:
        return

    async def aclose(self) -> None:
        return

    async def embed(self, texts: list[str]) -> Embeddings:
        self.calls += 1
        await self.gate.wait()
        return Embeddings(None, [len(texts)])  # type: ignore[arg-type]


async def test_a_call_goes_to_the_copy_that_has_the_least_to_do() -> None:
    first, second, third = several = [Held(), Held(), Held()]
    group = Replicas(several)  # type: ignore[arg-type]
    calls = [asyncio.create_task(group.embed(["a"])) for _ in range(6)]
    await asyncio.sleep(0)
    assert group.loads == [2, 2, 2]
    second.gate.set()
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    calls += [asyncio.create_task(group.embed(["b"])) for _ in range(2)]
    await asyncio.sleep(0)
    assert [each.calls for each in several] == [2, 4, 2]
    first.gate.set()
    third.gate.set()
    await asyncio.gather(*calls)
    assert group.loads == [0, 0, 0]


async def test_a_call_that_is_cancelled_gives_its_place_back() -> None:
    group = Replicas([Held(), Held()])  # type: ignore[arg-type]
    call = asyncio.create_task(group.embed(["a"]))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    assert group.loads == [0, 0]


def test_each_replica_on_cuda_has_the_next_gpu_and_on_the_cpu_a_share_of_the_threads() -> None:
    cuda = spread_hardware(CudaHardwareSpec(kind="cuda", device=1, replicas=3))
    assert [hardware.device for hardware in cuda] == [1, 2, 3]
    cpu = spread_hardware(CpuHardwareSpec(kind="cpu", threads=8, replicas=2))
    assert [hardware.threads for hardware in cpu] == [4, 4]


@pytest.mark.slow
async def test_two_replicas_on_the_cpu_answer_as_one_does(minilm_folder: Path) -> None:
    pytest.importorskip("transformers")
    body = {"input": ["the harbour in the morning", "a broken bicycle"]}

    async def answers(replicas: int) -> list[Any]:
        words = ["provider=local", "model=minilm-l6", "hardware=cpu", f"hardware.replicas={replicas}"]
        async with Engine.compose(words) as engine:
            return [(await engine.submit(Request("embedding", body))).body for _ in range(2)]

    assert await answers(2) == await answers(1)
