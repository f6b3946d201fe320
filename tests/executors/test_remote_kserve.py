"""The KServe dialect against MLServer, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from servers.mlserver import mlserver

from engine.errors import InvalidRequest, ServerFailed
from engine.executors import Services
from engine.executors.remote import RemoteExecutor
from engine.request import Context, EngineRecord, Request, Result
from schemas import TargetSpec
from schemas.hardware import AutoHardwareSpec
from schemas.model import ModelSpec
from schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with mlserver() as address:
        yield address


@pytest.fixture
async def executor(url: str) -> AsyncIterator[RemoteExecutor]:
    provider = RemoteProviderSpec(
        kind="remote",
        name="kserve",
        dialect="kserve",
        base_url=url,
        credential=CredentialSpec(required=False),
        transport=TransportSpec(trust_env=False),
    )
    model = ModelSpec(name="texts", ids={"kserve": "texts"})
    services = Services()
    yield RemoteExecutor(
        TargetSpec(provider=provider, model=model, hardware=AutoHardwareSpec(kind="auto")),
        services,
    )
    await services.aclose()


async def ask(executor: RemoteExecutor, **body: Any) -> Result:
    return await executor(Request("embedding", body), Context(EngineRecord(), 0.0))


async def test_texts_become_vectors(executor: RemoteExecutor) -> None:
    result = await ask(executor, input=["a", "bcd", "ü☃"])
    assert result.body is not None
    assert [each["embedding"] for each in result.body["data"]] == [
        [1.0, 0.0, 0.5],
        [3.0, 6.0, 0.5],
        [2.0, float((ord("ü") + ord("☃")) % 97), 0.5],
    ]


async def test_an_output_can_be_named(executor: RemoteExecutor) -> None:
    result = await ask(executor, input="a", output_tensor="embedding")
    assert result.body is not None
    assert result.body["data"][0]["embedding"] == [1.0, 0.0, 0.5]


async def test_vectors_are_packed_where_that_was_asked_for(executor: RemoteExecutor) -> None:
    result = await ask(executor, input="a", encoding_format="base64")
    assert result.body is not None
    assert result.body["data"][0]["embedding"] == "AACAPwAAAAAAAAA/"


async def test_a_model_that_fails_is_a_failure_of_the_server(executor: RemoteExecutor) -> None:
    with pytest.raises(ServerFailed, match="HTTP 500"):
        await ask(executor, input="fail")


async def test_a_model_that_is_not_there_is_named(executor: RemoteExecutor) -> None:
    with pytest.raises(InvalidRequest, match=r"Model other not found.*model\.name"):
        await ask(executor, input="a", model="other")


async def test_the_check_finds_the_model(executor: RemoteExecutor) -> None:
    assert "has texts (1 models)" in await executor.check()
