"""A file from an address: what is read, and that nothing is read for ever."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from engine.core.errors import InvalidRequest
from engine.core.media_access import MediaAccess
from engine.core.request import Request
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from engine.transports.aiohttp import AiohttpTransport
from engine.transports.download import download
from engine.transports.httpx import HttpxTransport
from engine.transports.transport import Transport
from tests.servers.scripted import Exchange, ScriptedServer
from tests.transports.test_certificates import write_certificate

Serve = Callable[..., Awaitable[ScriptedServer]]
WAV = b"RIFF\x24\x00\x00\x00WAVE"


@pytest.fixture(params=[AiohttpTransport, HttpxTransport])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    kind = "aiohttp" if request.param is AiohttpTransport else "httpx"
    made = request.param(TransportSpec(kind=kind, trust_env=False))
    yield made
    await made.aclose()


async def test_the_bytes_come_with_their_type_and_nothing_secret_is_sent(transport: Transport, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, WAV, {"content-type": "audio/wav"})

    server = await serve(script)
    assert await download(transport, f"{server.url}/clip.wav", 100, 5) == (WAV, "audio/wav")
    (exchange,) = server.exchanges
    assert (exchange.method, exchange.path) == ("GET", "/clip.wav")
    assert not {"authorization", "cookie", "x-api-key"} & exchange.headers.keys()


async def test_a_file_that_is_too_large_is_left_in_the_middle(transport: Transport, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start({"content-type": "audio/wav"})
        while not exchange.left.is_set():
            await exchange.piece(b"x" * 1000)

    server = await serve(script)
    with pytest.raises(InvalidRequest, match=r"more than 5000 bytes \(media\.max_bytes\)"):
        await asyncio.wait_for(download(transport, server.url, 5000, 5), 3)


async def test_a_file_that_does_not_come_is_not_waited_for(transport: Transport, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_left()

    server = await serve(script)
    with pytest.raises(InvalidRequest, match=r"did not come within 0\.05 s \(media\.timeout_s\)"):
        await download(transport, server.url, 5000, 0.05)


@pytest.mark.parametrize("status", [301, 403, 404, 500])
async def test_any_other_status_is_no_file_and_no_redirect_is_followed(
    transport: Transport, serve: Serve, status: int
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, b"", {"location": "/elsewhere"})

    server = await serve(script)
    with pytest.raises(InvalidRequest, match=f"HTTP {status}; the file can't be read there"):
        await download(transport, server.url, 5000, 5)
    assert len(server.exchanges) == 1


async def test_a_host_that_is_not_there_is_no_failure_of_the_provider(transport: Transport) -> None:
    with pytest.raises(InvalidRequest, match="the file can't be read: "):
        await download(transport, "http://127.0.0.1:1/a.wav", 5000, 5)


async def test_an_https_file_is_read_for_a_request_where_that_is_allowed(serve: Serve, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.reply(200, WAV, {"content-type": "audio/wav; x=y"})
        else:
            await exchange.reply(200, {"text": "hello"})

    certificate = write_certificate(tmp_path, "127.0.0.1", 2)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await serve(script, tls=context)
    services = Services(media=MediaAccess(urls=True))
    provider = RemoteProviderSpec(
        kind="remote",
        name="test",
        base_url=server.url,
        credential=CredentialSpec(required=False),
        transport=TransportSpec(verify=str(certificate), trust_env=False),
    )
    executor = RemoteExecutor(
        TargetSpec(provider=provider, model=ModelSpec(name="m"), hardware=AutoHardwareSpec(kind="auto")), services
    )
    try:
        request = await executor.with_media(Request("transcription", {"file": f"{server.url}/talks/clip.wav?x=1"}))
        services.media = MediaAccess(urls=False)
        with pytest.raises(InvalidRequest, match=r"set media\.allow_urls=true"):
            await executor.with_media(Request("transcription", {"file": f"{server.url}/clip.wav"}))
        services.media = MediaAccess(urls=True)
        with pytest.raises(InvalidRequest, match="only https URLs are read"):
            await executor.with_media(Request("transcription", {"file": "http://127.0.0.1/clip.wav"}))
    finally:
        await services.aclose()
    media = request.body["file"]
    assert (media.data, media.filename, media.content_type) == (WAV, "clip.wav", "audio/wav")
