"""KServe over gRPC through the executor, against a real gRPC server in this process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")

from engine.core.errors import (
    AuthFailed,
    Cancelled,
    ConfigError,
    ConnectFailed,
    InferenceError,
    InvalidRequest,
    Malformed,
    Overloaded,
    SetupError,
    Throttled,
    TimedOut,
)
from engine.core.request import Attempt, Context, EngineRecord, Request, Result
from engine.dialects.server import ClientCall
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from tests.servers.grpc_server import GrpcServer

pytestmark = pytest.mark.slow


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    made = Services()
    yield made
    await made.aclose()


def executor(
    url: str, services: Services, credential: CredentialSpec | None = None, **transport: Any
) -> RemoteExecutor:
    provider = RemoteProviderSpec(
        kind="remote",
        name="kserve",
        dialect="kserve",
        base_url=url,
        credential=credential or CredentialSpec(required=False),
        transport=TransportSpec(kind="grpc", trust_env=False, **transport),
    )
    model = ModelSpec(name="m", ids={"kserve": "m"})
    return RemoteExecutor(TargetSpec(provider=provider, model=model, hardware=AutoHardwareSpec(kind="auto")), services)


async def ask(own: RemoteExecutor, task: str = "embedding", **body: Any) -> Result:
    context = Context(EngineRecord(attempts=[Attempt("t", own.keys[0] if own.keys else None)]), 0.0)
    context.attempt = context.record.attempts[0]
    return await own(Request(task, body or {"input": ["a", "b"]}), context)


async def vectors(call: ClientCall) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": [float(index), 0.5]} for index in range(len(call.body["input"]))]}


async def for_ever(call: ClientCall) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_texts_become_vectors(services: Services) -> None:
    async with GrpcServer(vectors) as server:
        result = await ask(executor(server.url, services))
    assert result.body is not None
    assert [each["embedding"] for each in result.body["data"]] == [[0.0, 0.5], [1.0, 0.5]]


async def test_tensors_go_in_and_come_out(services: Services) -> None:
    async def double(call: ClientCall) -> dict[str, Any]:
        given = call.body["inputs"]["x"]
        return {"outputs": {"y": {**given, "data": [2 * each for each in given["data"]]}}}

    async with GrpcServer(double) as server:
        body = {"inputs": {"x": [[1, 2], [3, 4]]}, "outputs": ["y"], "parameters": {"k": 3}}
        result = await ask(executor(server.url, services), "tensors", **body)
    assert result.body is not None
    assert result.body["outputs"] == {"y": {"shape": [2, 2], "datatype": "INT64", "data": [2, 4, 6, 8]}}
    assert (server.calls[0].body["outputs"], server.calls[0].body["parameters"]) == (["y"], {"k": 3})


async def test_the_key_goes_as_metadata_and_stays_out_of_errors(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-canary0123456789abcdefghij"
    monkeypatch.setenv("GRPC_TEST_KEY", key)

    async def refuse(call: ClientCall) -> dict[str, Any]:
        raise AuthFailed(f"the key {call.key} is not known")

    async with GrpcServer(refuse) as server:
        own = executor(server.url, services, CredentialSpec(env=("GRPC_TEST_KEY",)))
        with pytest.raises(AuthFailed) as caught:
            await ask(own)
    assert server.metadata["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value)
    assert "key GRPC_TEST_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (InvalidRequest("no such tensor"), "invalid_request", 400),
        (Throttled("slow down", retry_after_s=3), "throttled", 429),
        (Overloaded("no room", retry_after_s=3), "overloaded", 503),
        (TimedOut("too slow"), "timeout", 504),
        (Cancelled("gone"), "server", 500),
        (Malformed("broken"), "server", 500),
    ],
)
async def test_a_status_is_a_word_of_the_vocabulary(
    services: Services, error: InferenceError, kind: str, status: int
) -> None:
    async def refuse(call: ClientCall) -> dict[str, Any]:
        raise error

    async with GrpcServer(refuse) as server:
        with pytest.raises(InferenceError, match=error.message) as caught:
            await ask(executor(server.url, services))
    found = caught.value
    assert (found.kind, found.status, found.retry_after_s) == (kind, status, error.retry_after_s)


async def test_a_server_without_the_methods_fails_the_check(services: Services) -> None:
    async with GrpcServer(vectors) as server:
        own = executor(server.url, services)
        assert "has m (1 model); engine 1, the model is ready" in await own.check()
        other = executor(server.url + "/prefix", services)
        with pytest.raises(InvalidRequest, match=r"keeps no list of models \(HTTP 501\); a trial \(embedding\) failed"):
            await other.check()


async def test_a_call_that_takes_too_long_times_out(services: Services) -> None:
    async with GrpcServer(for_ever) as server:
        with pytest.raises(TimedOut):
            await ask(executor(server.url, services, read_s=0.3))


async def test_a_caller_that_leaves_cancels_the_call(services: Services) -> None:
    async with GrpcServer(for_ever) as server:
        task = asyncio.ensure_future(ask(executor(server.url, services)))
        await asyncio.wait_for(server.asked.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.left.wait(), 5)


async def test_a_reply_that_is_too_large_is_refused_by_name(services: Services) -> None:
    async def large(call: ClientCall) -> dict[str, Any]:
        return {"data": [{"index": index, "embedding": [0.5] * 1000} for index in range(2)]}

    async with GrpcServer(large) as server:
        with pytest.raises(Malformed, match=r"1024 bytes \(provider\.transport\.max_body_bytes\)"):
            await ask(executor(server.url, services, max_body_bytes=1024))


async def test_nobody_there_is_a_failed_connection_at_once(services: Services) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:1: .*is a gRPC server running there"):
        await ask(executor("http://127.0.0.1:1", services))
    assert time.monotonic() - started < 5


async def test_a_server_that_comes_back_is_found(services: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    own = executor(f"http://127.0.0.1:{port}", services)
    with pytest.raises(ConnectFailed):
        await ask(own)
    async with GrpcServer(vectors, port=port):
        assert (await ask(own)).body is not None


async def test_a_port_that_says_nothing_times_out(services: Services) -> None:
    words = r"no connection within 0\.5 s \(provider\.transport\.connect_s\)"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut, match=words):
        await ask(executor(f"http://127.0.0.1:{silent.getsockname()[1]}", services, connect_s=0.5))


async def test_a_closed_engine_asks_nobody(services: Services) -> None:
    async with GrpcServer(vectors) as server:
        own = executor(server.url, services)
        await ask(own)
        await services.aclose()
        with pytest.raises(Cancelled):
            await ask(own)


async def test_tls_trusts_the_bundle_that_is_named(services: Services, tmp_path: Path) -> None:
    import grpc

    bundle, key = certificate(tmp_path)
    tls = grpc.ssl_server_credentials([(key.read_bytes(), bundle.read_bytes())])
    async with GrpcServer(vectors, tls=tls) as server:
        assert (await ask(executor(server.url, services, verify=str(bundle)))).body is not None
        with pytest.raises(ConnectFailed, match=r"(?i)certificate"):
            await ask(executor(server.url, services))


async def test_a_bundle_that_is_not_there_is_named(services: Services) -> None:
    with pytest.raises(SetupError, match=r"provider\.transport\.verify: can't use no-such-file"):
        await ask(executor("https://127.0.0.1:1", services, verify="no-such-file"))


async def test_an_unverified_certificate_is_refused_with_the_step(services: Services) -> None:
    with pytest.raises(InvalidRequest, match=r"provider\.transport\.verify: .*CA bundle"):
        await ask(executor("https://127.0.0.1:1", services, verify=False))


def test_a_dialect_without_a_form_over_grpc_is_refused() -> None:
    provider = RemoteProviderSpec(
        kind="remote",
        name="hf_tei",
        dialect="tei",
        base_url="http://127.0.0.1:1",
        credential=CredentialSpec(required=False),
        transport=TransportSpec(kind="grpc"),
    )
    target = TargetSpec(provider=provider, model=ModelSpec(name="m"), hardware=AutoHardwareSpec(kind="auto"))
    with pytest.raises(ConfigError, match=r"provider\.transport\.kind: .*'tei' has no form over gRPC; one of: kserve"):
        RemoteExecutor(target, Services())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    import datetime
    import ipaddress

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret
