"""The KServe dialects against MLServer, over real sockets: REST and gRPC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from engine.core.errors import (
    ConfigError,
    ConnectFailed,
    InferenceError,
    InvalidRequest,
    Malformed,
    ServerFailed,
)
from engine.core.request import Attempt, Context, EngineRecord, Request, Result
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from tests.servers.mlserver import Addresses, mlserver

pytestmark = pytest.mark.slow
Make = Callable[..., RemoteExecutor]
VECTORS = [[1.0, 0.0, 0.5], [3.0, 6.0, 0.5], [2.0, float((ord("ü") + ord("☃")) % 97), 0.5]]


def target(url: str, model: str = "texts", dialect: str = "kserve", **transport: Any) -> TargetSpec:
    provider = RemoteProviderSpec(
        kind="remote",
        name="kserve",
        dialect=dialect,
        base_url=url,
        credential=CredentialSpec(required=False),
        transport=TransportSpec(trust_env=False, **transport),
    )
    return TargetSpec(
        provider=provider,
        model=ModelSpec(name=model, ids={"kserve": model}),
        hardware=AutoHardwareSpec(kind="auto"),
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Addresses]:
    with mlserver() as addresses:
        yield addresses


@pytest.fixture(params=["aiohttp", "grpc"])
async def make(server: Addresses, request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    if request.param == "grpc":
        pytest.importorskip("grpc")
    url = server.grpc if request.param == "grpc" else server.rest
    services = Services()
    yield lambda model="texts", **transport: RemoteExecutor(
        target(url, model, kind=request.param, **transport), services
    )
    await services.aclose()


async def ask(executor: RemoteExecutor, task: str = "embedding", **body: Any) -> Result:
    context = Context(EngineRecord(attempts=[Attempt("t")]), 0.0)
    context.attempt = context.record.attempts[0]
    return await executor(Request(task, body), context)


async def vectors(executor: RemoteExecutor, **body: Any) -> list[Any]:
    found = (await ask(executor, **body)).body
    assert found is not None
    return [each["embedding"] for each in found["data"]]


async def test_texts_become_vectors(make: Make) -> None:
    assert await vectors(make(), input=["a", "bcd", "ü☃"]) == VECTORS


async def test_an_output_can_be_named(make: Make) -> None:
    assert await vectors(make(), input="a", output_tensor="embedding") == VECTORS[:1]


async def test_vectors_are_packed_where_that_was_asked_for(make: Make) -> None:
    assert await vectors(make(), input="a", encoding_format="base64") == ["AACAPwAAAAAAAAA/"]


async def test_the_metadata_says_which_tensors_a_model_takes_and_gives(make: Make) -> None:
    # Without it, the texts would go into `text`, and neither output could be told from the other.
    assert await vectors(make("columns"), input=["a", "bcd", "ü☃"]) == VECTORS


async def test_tensors_go_in_and_come_out(make: Make) -> None:
    result = await ask(make("sums"), "tensors", inputs={"a": [[1, 2], [3, 4]], "b": [[1, 0.5], [3, -4]]})
    assert result.body is not None
    assert result.body["outputs"] == {
        "sum": {"shape": [2, 2], "datatype": "FP32", "data": [2.0, 2.5, 6.0, 0.0]},
        "equal": {"shape": [2, 2], "datatype": "BOOL", "data": [True, False, True, False]},
    }
    assert result.body["model"] == "sums"


async def test_tensors_are_packed_where_that_was_asked_for(make: Make) -> None:
    inputs = {"a": [[1, 2]], "b": [[0, 0]]}
    result = await ask(make("sums"), "tensors", inputs=inputs, encoding_format="base64")
    assert result.body is not None
    assert result.body["outputs"]["sum"]["data"] == "AACAPwAAAEA="


async def test_a_model_that_fails_is_a_failure_of_the_server(make: Make) -> None:
    with pytest.raises(ServerFailed, match="HTTP 500"):
        await ask(make(), input="fail")


async def test_a_model_that_is_not_there_is_named(make: Make) -> None:
    with pytest.raises(InvalidRequest, match=r"Model other.* not found.*model\.name"):
        await ask(make(), input="a", model="other")


async def test_the_check_says_what_the_server_and_the_model_are(make: Make) -> None:
    found = await make("sums").check()
    assert "has sums (3 models)" in found
    assert "mlserver 1.7.1, the model is ready, inputs: a FP32 [-1, 2], b FP32 [-1, 2], outputs: sum FP32" in found


async def test_a_large_message_is_refused_by_name(make: Make) -> None:
    executor = make(max_body_bytes=1024)
    with pytest.raises(Malformed, match=r"1024 bytes \(provider\.transport\.max_body_bytes\)"):
        await ask(executor, input=["a"] * 1000)


async def test_a_grpc_server_that_is_away_is_a_failed_connection(server: Addresses) -> None:
    pytest.importorskip("grpc")
    services = Services()
    executor = RemoteExecutor(target("http://127.0.0.1:1", kind="grpc"), services)
    started = time.monotonic()
    with pytest.raises(ConnectFailed, match=r"127.0.0.1:1.*is a gRPC server running there"):
        await ask(executor, input="a")
    assert time.monotonic() - started < 5
    await services.aclose()


async def test_a_grpc_client_at_a_rest_port_says_so(server: Addresses) -> None:
    pytest.importorskip("grpc")
    services = Services()
    executor = RemoteExecutor(target(server.rest, kind="grpc", connect_s=3), services)
    with pytest.raises(InferenceError, match=r"gRPC|no connection") as caught:
        await ask(executor, input="a")
    assert caught.value.kind in ("connect", "timeout")
    await services.aclose()


async def test_a_dialect_without_a_form_over_grpc_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"provider\.transport\.kind: .*'tei' has no form over gRPC; one of: kserve"):
        RemoteExecutor(target("http://127.0.0.1:1", dialect="tei", kind="grpc"), Services())
