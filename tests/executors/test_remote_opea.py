"""The OPEA dialect against services on OPEA's own library, over real sockets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.core.errors import InvalidRequest, ServerFailed
from engine.core.request import Context, EngineRecord, Request, Result
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from engine.schemas.simulated import SimulatedProviderSpec
from engine.simulation.server import SimulatedServer
from tests.servers.environments import OPEA
from tests.servers.processes import free_ports, serving

pytestmark = pytest.mark.slow
Make = Callable[[int, str], RemoteExecutor]


class Ports(NamedTuple):
    """Where each service is."""

    model: int
    mega: int
    reranker: int
    retriever: int
    guard: int
    dataprep: int


CHAT: dict[str, Any] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "max_completion_tokens": 3,
}


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    """Of the model behind the megaservice, which a test starts; of the services."""
    interpreter = os.environ.get("OPEA_COMPS_PYTHON") or OPEA.program("python")
    if not interpreter:
        pytest.skip("opea-comps is not installed; make test-servers")
    script = Path(__file__).parent.parent / "servers" / "opea_services.py"
    found = Ports(*free_ports(6))
    command = [interpreter, str(script), *map(str, found)]
    ready = [f"http://127.0.0.1:{port}/v1/health_check" for port in found[1:]]
    with serving(command, {"OTEL_SDK_DISABLED": "true"}, ready):
        yield found


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


async def test_a_megaservice_answers(make: Make, ports: Ports) -> None:
    async with simulated(ports.model) as model:
        result = await ask(make(ports.mega, "chatqna"), "chat", CHAT)
        assert model.provider.counters.calls == 1
    assert result.body is not None
    assert result.body["choices"][0]["message"]["content"] == "[simulated] word2 word3"
    assert result.usage is None


async def test_a_megaservice_streams(make: Make, ports: Ports) -> None:
    async with simulated(ports.model):
        result = await ask(make(ports.mega, "chatqna"), "chat", CHAT, stream=True)
        assert result.stream is not None
        choices = [chunk.body["choices"][0] async for chunk in result.stream]
    assert [choice["delta"].get("content") for choice in choices] == ["[simulated]", " word2", " word3", None]
    assert choices[-1]["finish_reason"] == "stop"


async def test_a_megaservice_whose_model_is_away_is_a_failure(make: Make, ports: Ports) -> None:
    with pytest.raises(ServerFailed, match="HTTP 500"):
        await ask(make(ports.mega, "chatqna"), "chat", CHAT)


async def test_documents_are_ranked(make: Make, ports: Ports) -> None:
    body = {"query": "q", "documents": ["a", "ccc", {"text": "bb"}, "ccc"], "top_n": 3}
    result = await ask(make(ports.reranker, "reranker"), "rerank", body)
    assert result.body is not None
    assert [(each["index"], each["relevance_score"]) for each in result.body["results"]] == [
        (1, 0.3),
        (3, 0.3),
        (2, 0.2),
    ]


async def test_all_documents_come_back_where_no_number_is_asked_for(make: Make, ports: Ports) -> None:
    result = await ask(make(ports.reranker, "reranker"), "rerank", {"query": "q", "documents": ["a", "ccc", "bb"]})
    assert result.body is not None
    assert [each["index"] for each in result.body["results"]] == [1, 2, 0]


async def test_the_check_finds_a_healthy_service(make: Make, ports: Ports) -> None:
    assert "it answers, and keeps no list of models" in await make(ports.mega, "chatqna").check()


async def test_documents_are_retrieved(make: Make, ports: Ports) -> None:
    body = {"inputs": {"text": "q", "embedding": [0.5, 0.25]}, "parameters": {"k": 2, "search_type": "mmr"}}
    result = await ask(make(ports.retriever, "retriever"), "retrieval", body)
    assert result.body is not None
    assert result.body["outputs"] == [{"text": f"q {rank}", "metadata": {"size": 2}} for rank in range(2)]


@pytest.mark.parametrize(
    ("text", "flagged", "categories"), [("bread", False, {}), ("poison", True, {"Violence and Hate": True})]
)
async def test_a_guardrail_says_what_it_finds(
    make: Make, ports: Ports, text: str, flagged: bool, categories: dict[str, bool]
) -> None:
    result = await ask(make(ports.guard, "guard"), "moderation", {"input": text})
    assert result.body is not None
    (found,) = result.body["results"]
    assert (found["flagged"], found["categories"]) == (flagged, categories)


async def test_files_are_ingested_listed_and_deleted(make: Make, ports: Ports) -> None:
    executor = make(ports.dataprep, "dataprep")

    async def done(**body: Any) -> Any:
        result = await ask(executor, "dataprep", body)
        assert result.body is not None
        return result.body["outputs"]

    file = {"data": "aGVsbG8=", "filename": "a.txt"}
    await done(inputs={"files": [file], "links": ["https://example.org"]}, parameters={"chunk_size": 7})
    listed = await done(parameters={"operation": "get"})
    assert [each["id"] for each in listed] == ["a.txt", "https://example.org"]
    with pytest.raises(InvalidRequest, match=r"a\.txt already exists"):
        await done(inputs={"files": [file]})
    assert await done(inputs={"file_path": "a.txt"}, parameters={"operation": "delete"}) == {"status": True}
    with pytest.raises(InvalidRequest, match="File not found"):
        await done(inputs={"file_path": "a.txt"}, parameters={"operation": "delete"})
