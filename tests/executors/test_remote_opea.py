"""The OPEA dialect against services on OPEA's own library, over real sockets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.processes import free_ports, serving

from engine.errors import ServerFailed
from engine.executors import Services
from engine.executors.remote import RemoteExecutor
from engine.request import Context, EngineRecord, Request, Result
from engine.simulation.server import SimulatedServer
from schemas import TargetSpec
from schemas.hardware import AutoHardwareSpec
from schemas.model import ModelSpec
from schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from schemas.simulated import SimulatedProviderSpec

pytestmark = pytest.mark.slow
Make = Callable[[int, str], RemoteExecutor]
CHAT: dict[str, Any] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "max_completion_tokens": 3,
}


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int, int]]:
    """Of the model behind the megaservice, which a test starts; of the megaservice; of the reranker."""
    interpreter = os.environ.get("OPEA_COMPS_PYTHON")
    if not interpreter:
        pytest.skip("OPEA_COMPS_PYTHON names no interpreter that has opea-comps (PyPI: opea-comps==1.5)")
    script = Path(__file__).parent.parent / "servers" / "opea_services.py"
    model, mega, reranker = free_ports(3)
    command = [interpreter, str(script), str(model), str(mega), str(reranker)]
    ready = [f"http://127.0.0.1:{port}/v1/health_check" for port in (mega, reranker)]
    with serving(command, {"OTEL_SDK_DISABLED": "true"}, ready):
        yield model, mega, reranker


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    services = Services()

    def of(port: int, model: str) -> RemoteExecutor:
        provider = RemoteProviderSpec(
            kind="remote",
            name="opea",
            dialect="opea",
            base_url=f"http://127.0.0.1:{port}/v1",
            credential=CredentialSpec(required=False),
            transport=TransportSpec(trust_env=False),
        )
        named = ModelSpec(name="m", ids={"opea": model})
        return RemoteExecutor(
            TargetSpec(provider=provider, model=named, hardware=AutoHardwareSpec(kind="auto")),
            services,
        )

    yield of
    await services.aclose()


def simulated(port: int) -> SimulatedServer:
    return SimulatedServer(SimulatedProviderSpec(kind="simulated"), port=port)


async def ask(executor: RemoteExecutor, task: str, body: dict[str, Any], stream: bool = False) -> Result:
    return await executor(Request(task, body), Context(EngineRecord(), 0.0, stream=stream))


async def test_a_megaservice_answers(make: Make, ports: tuple[int, int, int]) -> None:
    async with simulated(ports[0]) as model:
        result = await ask(make(ports[1], "chatqna"), "chat", CHAT)
        assert model.provider.counters.calls == 1
    assert result.body is not None
    assert result.body["choices"][0]["message"]["content"] == "[simulated] word2 word3"
    assert result.usage is None


async def test_a_megaservice_streams(make: Make, ports: tuple[int, int, int]) -> None:
    async with simulated(ports[0]):
        result = await ask(make(ports[1], "chatqna"), "chat", CHAT, stream=True)
        assert result.stream is not None
        choices = [chunk.body["choices"][0] async for chunk in result.stream]
    assert [choice["delta"].get("content") for choice in choices] == ["[simulated]", " word2", " word3", None]
    assert choices[-1]["finish_reason"] == "stop"


async def test_a_megaservice_whose_model_is_away_is_a_failure(make: Make, ports: tuple[int, int, int]) -> None:
    with pytest.raises(ServerFailed, match="HTTP 500"):
        await ask(make(ports[1], "chatqna"), "chat", CHAT)


async def test_documents_are_ranked(make: Make, ports: tuple[int, int, int]) -> None:
    body = {"query": "q", "documents": ["a", "ccc", {"text": "bb"}, "ccc"], "top_n": 3}
    result = await ask(make(ports[2], "reranker"), "rerank", body)
    assert result.body is not None
    assert [(each["index"], each["relevance_score"]) for each in result.body["results"]] == [
        (1, 0.3),
        (3, 0.3),
        (2, 0.2),
    ]


async def test_all_documents_come_back_where_no_number_is_asked_for(make: Make, ports: tuple[int, int, int]) -> None:
    result = await ask(make(ports[2], "reranker"), "rerank", {"query": "q", "documents": ["a", "ccc", "bb"]})
    assert result.body is not None
    assert [each["index"] for each in result.body["results"]] == [1, 2, 0]


async def test_the_check_finds_a_healthy_service(make: Make, ports: tuple[int, int, int]) -> None:
    assert "it answers, and keeps no list of models" in await make(ports[1], "chatqna").check()
