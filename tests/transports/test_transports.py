"""What the port promises, of every adapter."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import (
    ConnectFailed,
    InferenceError,
    InvalidRequest,
    Malformed,
    SetupError,
    TimedOut,
    Truncated,
)
from engine.core.registry import TRANSPORTS
from engine.schemas.provider import TransportSpec
from engine.transports.transport import HttpCall, HttpReply, Transport
from tests.servers.scripted import Exchange, ScriptedServer, head

Serve = Callable[..., Awaitable[ScriptedServer]]
Make = Callable[..., Transport]
KEY = "Bearer sk-canary-0123456789abcdef"


@pytest.fixture(params=["aiohttp", "httpx"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[Transport] = []

    def of(**fields: Any) -> Transport:
        spec = TransportSpec(kind=request.param, **{"trust_env": False, **fields})
        made.append(TRANSPORTS.get(spec.kind)(spec))
        return made[-1]

    yield of
    for transport in made:
        await transport.aclose()


def post(url: str, content: bytes = b"{}") -> HttpCall:
    return HttpCall("POST", f"{url}/v1/x", {"authorization": KEY, "content-type": "application/json"}, content)


async def get_body(transport: Transport, url: str) -> bytes:
    return await (await transport.open(post(url))).read()


async def failure(awaitable: Awaitable[object]) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        await awaitable
    link: BaseException | None = caught.value
    while link is not None:
        assert "canary" not in f"{link} {link!r}"
        link = link.__cause__ or link.__context__
    return caught.value


def test_a_calls_headers_and_content_are_not_in_its_repr() -> None:
    assert "canary" not in repr(HttpCall("POST", "http://h", {"authorization": KEY}, b"canary"))


async def left(exchange: Exchange) -> None:
    """Fails unless the client is seen to leave at once."""
    await asyncio.wait_for(exchange.left.wait(), 2)


async def hang(exchange: Exchange) -> None:
    await exchange.until_left()


async def stream_then_hang(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.event(b"1")
    await exchange.until_left()


# -- what goes out and comes back --------------------------------------------------------------------------------------


async def test_the_request_arrives_as_it_was_given(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(201, {"ok": True}, {"X-Request-Id": "r1"})

    server = await serve(script)
    reply = await make().open(post(server.url, b'{"a":1}'))
    assert (reply.status, reply.headers.get("x-request-id")) == (201, "r1")
    assert await reply.read() == b'{"ok":true}'
    seen = server.exchanges[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/x", b'{"a":1}')
    assert seen.headers["authorization"] == KEY


async def test_a_connection_is_used_again_after_a_body_was_read(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"x")

    server = await serve(script)
    transport = make()
    for _ in range(3):
        await get_body(transport, server.url)
    assert server.connections == 1


Leave = Callable[[Exchange], None]


def ends_after(leave: Leave, stream: bool) -> Callable[[Exchange], Awaitable[None]]:
    """A server that answers once on each connection, without `connection: close`."""
    served: set[object] = set()

    async def script(exchange: Exchange) -> None:
        if exchange.writer in served:
            leave(exchange)  # the next request was on its way
        elif stream:
            served.add(exchange.writer)
            await exchange.start()
            await exchange.event(b"[DONE]")
            await exchange.end()
        else:
            served.add(exchange.writer)
            await exchange.reply(200, b"data: [DONE]\n\n")

    return script


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("leave", [Exchange.cut, Exchange.reset])
async def test_a_kept_connection_that_its_server_closed_is_replaced(
    make: Make, serve: Serve, leave: Leave, stream: bool
) -> None:
    server = await serve(ends_after(leave, stream))
    transport = make()
    for _ in range(5):
        assert await get_body(transport, server.url) == b"data: [DONE]\n\n"
    assert server.connections == 5


async def test_a_kept_connection_that_was_closed_before_the_call_is_replaced(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"x")
        exchange.cut()

    server = await serve(script)
    transport = make()
    assert [await get_body(transport, server.url) for _ in range(20)] == [b"x"] * 20
    assert len(server.exchanges) == server.connections == 20


@pytest.mark.parametrize("leave", [Exchange.cut, Exchange.reset])
async def test_a_call_is_sent_twice_at_most_and_never_after_a_byte_of_a_reply(
    make: Make, serve: Serve, leave: Leave
) -> None:
    first = True

    async def script(exchange: Exchange) -> None:
        nonlocal first
        if first:
            await exchange.reply(200, b"x")
        elif exchange.body == b"begun":
            await exchange.send(b"HTTP/1.1 20")
            await asyncio.sleep(0.05)
            leave(exchange)
        else:
            leave(exchange)
        first = False

    server = await serve(script)
    transport = make()
    await get_body(transport, server.url)
    assert isinstance(await failure(transport.open(post(server.url, b"begun"))), ConnectFailed | Malformed)
    assert len(server.exchanges) == 2
    first = True
    await get_body(transport, server.url)
    assert isinstance(await failure(transport.open(post(server.url))), ConnectFailed)
    assert len(server.exchanges) == 5


async def test_a_body_arrives_piece_by_piece(make: Make, serve: Serve) -> None:
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.piece(b"first")
        await asyncio.wait_for(go_on.wait(), 2)
        await exchange.piece(b"second")
        await exchange.end()

    server = await serve(script)
    chunks = (await make().open(post(server.url))).chunks()
    assert await anext(chunks) == b"first"
    go_on.set()
    assert [piece async for piece in chunks] == [b"second"]


async def test_gzip_is_decoded(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, gzip.compress(b"hello " * 1000), {"content-encoding": "gzip"})

    server = await serve(script)
    assert await get_body(make(), server.url) == b"hello " * 1000


async def test_a_cookie_is_not_kept(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"x", {"set-cookie": "session=1; Path=/"})

    server = await serve(script)
    transport = make()
    await get_body(transport, server.url)
    await get_body(transport, server.url)
    assert "cookie" not in server.exchanges[1].headers


async def test_a_redirect_is_not_followed(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(307, b"", {"location": "/elsewhere"})

    server = await serve(script)
    reply = await make().open(post(server.url))
    await reply.read()
    assert reply.status == 307
    assert len(server.exchanges) == 1


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_names_the_address_and_the_next_step(make: Make) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = await failure(make().open(post(f"http://127.0.0.1:{port}")))
    assert isinstance(error, ConnectFailed)
    assert f"http://127.0.0.1:{port}: can't connect" in error.message
    assert "provider.base_url" in error.message


@pytest.mark.slow
async def test_an_unknown_host_is_a_failed_connection(make: Make) -> None:
    error = await failure(make(connect_s=3).open(post("http://no-such-host.invalid")))
    assert isinstance(error, ConnectFailed | TimedOut)
    assert "no-such-host.invalid:80" in error.message


async def test_a_reset_before_the_headers_is_a_failed_connection(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.reset()

    error = await failure(make().open(post((await serve(script)).url)))
    assert isinstance(error, ConnectFailed)


async def test_a_close_before_the_headers_is_a_failed_connection(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.cut()

    error = await failure(make().open(post((await serve(script)).url)))
    assert isinstance(error, ConnectFailed)


async def test_a_reply_that_is_not_http_is_malformed(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"220 mail.example.com ESMTP ready\r\n\r\n")
        exchange.cut()

    error = await failure(make().open(post((await serve(script)).url)))
    assert isinstance(error, Malformed)


async def test_silence_before_the_headers_times_out(make: Make, serve: Serve) -> None:
    server = await serve(hang)
    error = await failure(make(read_s=0.3).open(post(server.url)))
    assert isinstance(error, TimedOut)
    assert "transport.read_s" in error.message
    await left(server.exchanges[0])


async def test_silence_in_the_middle_of_a_body_times_out(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    error = await failure(get_body(make(read_s=0.3), server.url))
    assert isinstance(error, TimedOut)
    await left(server.exchanges[0])


async def test_a_connection_that_is_never_accepted_times_out_as_a_connection(make: Make) -> None:
    # A listener with a full backlog leaves the next SYN unanswered.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        error = await failure(make(connect_s=0.1).open(post(f"http://127.0.0.1:{listener.getsockname()[1]}")))
        for filler in fillers:
            filler.close()
    assert isinstance(error, TimedOut)
    assert "transport.connect_s" in error.message


async def test_a_close_in_the_middle_of_a_counted_body_is_truncated(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(head(200, {"content-length": "100"}) + b"half")
        exchange.cut()

    error = await failure(get_body(make(), (await serve(script)).url))
    assert isinstance(error, Truncated)


async def test_a_close_in_the_middle_of_a_chunked_body_is_truncated(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.piece(b"half")
        exchange.cut()

    error = await failure(get_body(make(), (await serve(script)).url))
    assert isinstance(error, Truncated)
    assert error.status == 200


async def test_a_reset_in_the_middle_of_a_body_is_truncated(make: Make, serve: Serve) -> None:
    read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.piece(b"half")
        await read.wait()
        exchange.reset()

    server = await serve(script)
    chunks = (await make().open(post(server.url))).chunks()
    assert await anext(chunks) == b"half"
    read.set()
    assert isinstance(await failure(anext(chunks)), Truncated)


async def test_a_false_content_encoding_is_malformed(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"this is not gzip", {"content-encoding": "gzip"})

    error = await failure(get_body(make(), (await serve(script)).url))
    assert isinstance(error, Malformed)


async def test_an_endless_body_is_stopped_at_the_limit(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        while not exchange.left.is_set():
            await exchange.piece(b"x" * 4096)

    server = await serve(script)
    error = await failure(get_body(make(max_body_bytes=100_000), server.url))
    assert isinstance(error, Malformed)
    assert "max_body_bytes" in error.message
    await left(server.exchanges[0])


async def test_a_body_that_announces_too_much_is_stopped_at_the_limit(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(head(200, {"content-length": str(10**12)}))
        while not exchange.left.is_set():
            await exchange.send(b"x" * 4096)

    error = await failure(get_body(make(max_body_bytes=100_000), (await serve(script)).url))
    assert isinstance(error, Malformed)


async def test_a_gzip_bomb_is_stopped_at_the_limit(make: Make, serve: Serve) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, bomb, {"content-encoding": "gzip"})

    error = await failure(get_body(make(max_body_bytes=100_000), (await serve(script)).url))
    assert isinstance(error, Malformed)


async def test_an_address_that_is_not_http_is_an_invalid_request(make: Make) -> None:
    error = await failure(make().open(HttpCall("GET", "ftp://127.0.0.1/x", {"authorization": KEY})))
    assert isinstance(error, InvalidRequest)
    assert "provider.base_url" in error.message


# -- leaving -----------------------------------------------------------------------------------------------------------


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_while_waiting_for_headers_closes_the_connection(make: Make, serve: Serve) -> None:
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await exchange.until_left()

    server = await serve(script)
    task = asyncio.ensure_future(make().open(post(server.url)))
    await arrived.wait()
    await cancel(task)
    await left(server.exchanges[0])


async def test_cancelling_a_read_closes_the_connection(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    reply = await make().open(post(server.url))
    task = asyncio.ensure_future(reply.read())
    await asyncio.sleep(0.02)
    await cancel(task)
    await left(server.exchanges[0])


async def test_cancelling_in_the_middle_of_a_stream_closes_the_connection(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    first = asyncio.Event()

    async def listen(reply: HttpReply) -> None:
        async for _ in reply.chunks():
            first.set()

    task = asyncio.ensure_future(listen(await make().open(post(server.url))))
    await first.wait()
    await cancel(task)
    await left(server.exchanges[0])


async def test_leaving_a_stream_early_closes_the_connection(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    reply = await make().open(post(server.url))
    await anext(reply.chunks())
    await reply.aclose()
    await left(server.exchanges[0])


async def test_leaving_a_reply_unread_closes_the_connection(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    await (await make().open(post(server.url))).aclose()
    await left(server.exchanges[0])


async def test_a_connection_that_was_left_is_not_used_again(make: Make, serve: Serve) -> None:
    server = await serve(stream_then_hang)
    transport = make()
    for _ in range(2):
        reply = await transport.open(post(server.url))
        assert await anext(reply.chunks()) == b"data: 1\n\n"
        await reply.aclose()
    assert server.connections == 2


# -- TLS and proxies ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run([*command.split(), *where], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
async def tls_url(serve: Serve, certificate: tuple[Path, Path]) -> str:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"safe")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return (await serve(script, tls=context)).url


async def test_an_untrusted_certificate_is_refused_with_the_next_step(make: Make, tls_url: str) -> None:
    error = await failure(make().open(post(tls_url)))
    assert isinstance(error, ConnectFailed)
    assert "certificate is not trusted" in error.message
    assert "provider.transport.verify" in error.message


async def test_a_ca_bundle_makes_its_certificates_trusted(
    make: Make, tls_url: str, certificate: tuple[Path, Path]
) -> None:
    assert await get_body(make(verify=str(certificate[0])), tls_url) == b"safe"


async def test_verification_can_be_turned_off(make: Make, tls_url: str) -> None:
    assert await get_body(make(verify=False), tls_url) == b"safe"


def test_a_missing_ca_bundle_is_refused_before_any_call(make: Make, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"provider\.transport\.verify: can't use .*gone\.pem"):
        make(verify=str(tmp_path / "gone.pem"))


async def proxy_script(exchange: Exchange) -> None:
    await exchange.reply(200, exchange.path.encode())


async def test_a_proxy_gets_the_whole_address(make: Make, serve: Serve) -> None:
    server = await serve(proxy_script)
    assert await get_body(make(proxy=server.url), "http://api.example.invalid") == b"http://api.example.invalid/v1/x"


async def test_the_environments_proxy_is_used(make: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(proxy_script)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url)
    body = await get_body(make(trust_env=True), "http://api.example.invalid")
    assert body == b"http://api.example.invalid/v1/x"


async def test_what_no_proxy_names_is_reached_directly(
    make: Make, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(proxy_script)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert await get_body(make(trust_env=True), server.url) == b"/v1/x"


async def test_a_proxy_that_refuses_to_connect_is_a_failed_connection(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(407, b"")

    server = await serve(script)
    error = await failure(make(proxy=server.url).open(post("https://api.example.invalid")))
    assert isinstance(error, ConnectFailed)
    assert server.exchanges[0].method == "CONNECT"
    assert "authorization" not in server.exchanges[0].headers


@pytest.mark.slow
async def test_closing_the_transport_ends_a_body_that_another_task_reads(make: Make, serve: Serve) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.piece(b"begun")
        await exchange.until_left()

    server = await serve(endless)
    transport = make()
    reply = await transport.open(HttpCall("GET", server.url, {}))
    chunks = reply.chunks()
    assert await anext(chunks) == b"begun"
    reader = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0.01)
    await transport.aclose()
    async with asyncio.timeout(2):
        with pytest.raises(InferenceError):
            await reader
