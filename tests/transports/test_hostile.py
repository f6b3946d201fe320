"""Servers that break every rule: one typed error each, at once, and no connection left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from engine.core.errors import ConnectFailed, InferenceError, Malformed, TimedOut, Truncated
from engine.core.registry import TRANSPORTS
from engine.schemas.provider import TransportSpec
from engine.transports.transport import HttpCall, Transport
from tests.servers.scripted import Exchange, ScriptedServer, head
from tests.transports.sockets import back_to, open_sockets

Serve = Callable[..., Awaitable[ScriptedServer]]
Make = Callable[..., Transport]
KEY = "Bearer sk-canary-0123456789abcdef"
OK = head(200, {"content-type": "application/json", "content-length": "2"}) + b"{}"


@pytest.fixture(params=["aiohttp", "httpx"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[Transport] = []

    def of(**fields: Any) -> Transport:
        spec = TransportSpec(kind=request.param, **{"trust_env": False, "read_s": 5.0, **fields})
        made.append(TRANSPORTS.get(spec.kind)(spec))
        return made[-1]

    yield of
    for transport in made:
        await transport.aclose()


async def ask(transport: Transport, url: str) -> bytes:
    reply = await transport.open(HttpCall("POST", f"{url}/v1/x", {"authorization": KEY}, b"{}"))
    return await reply.read()


async def failure(transport: Transport, url: str) -> InferenceError:
    """The error of a call, which must come soon, hold no key, and leave no connection open."""
    before = open_sockets()
    async with asyncio.timeout(30):
        with pytest.raises(InferenceError) as caught:
            await ask(transport, url)
    await back_to(before)
    link: BaseException | None = caught.value
    while link is not None:
        assert "canary" not in f"{link} {link!r}"
        link = link.__cause__ or link.__context__
    return caught.value


def sends(data: bytes, then: str = "cut") -> Callable[[Exchange], Awaitable[None]]:
    """A server that sends bytes, and then closes the connection, or says nothing more."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        if then == "cut":
            exchange.cut()
        else:
            await exchange.until_left()

    return script


def floods(start: bytes, pieces: Iterator[bytes]) -> Callable[[Exchange], Awaitable[None]]:
    """A server that never stops sending."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(start)
        for piece in pieces:
            await exchange.send(piece)

    return script


def hundred_names(start: int) -> bytes:
    """Headers of names that no other has."""
    return b"".join(b"x-%d-%d: v\r\n" % (start, number) for number in range(100))


def drips(start: bytes, pieces: Iterator[bytes]) -> Callable[[Exchange], Awaitable[None]]:
    """A server that sends a little, again and again."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(start)
        for piece in pieces:
            await asyncio.sleep(0.02)
            await exchange.send(piece)

    return script


# -- the head of a reply -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "pieces"),
    [
        (b"HTTP/1.1 200 OK\r\n", itertools.repeat(b"x-h: v\r\n" * 100)),
        (b"HTTP/1.1 200 OK\r\n", map(hundred_names, itertools.count())),
        (b"HTTP/1.1 200 OK\r\nx-h: ", itertools.repeat(b"v" * 4096)),
        (b"HTTP/1.1 200 OK\r\n", itertools.repeat(b"n" * 4096)),
        (b"HTTP/1.1 200 ", itertools.repeat(b"O" * 4096)),
        (b"", itertools.repeat(b"H" * 4096)),
        (b"HTTP/1.1 200 OK\r\nx-h: v\r\n", itertools.repeat(b" folded\r\n" * 100)),
        (b"", itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
        (b"", itertools.repeat(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 100)),
    ],
    ids=["count", "names", "value", "name", "reason", "status", "folds", "continue", "hints"],
)
async def test_an_endless_head_is_refused(make: Make, serve: Serve, start: bytes, pieces: Iterator[bytes]) -> None:
    error = await failure(make(), (await serve(floods(start, pieces))).url)
    assert isinstance(error, Malformed)
    assert "headers are broken or too large" in error.message


@pytest.mark.slow
async def test_empty_lines_without_end_are_given_up_in_time(make: Make, serve: Serve) -> None:
    server = await serve(floods(b"", itertools.repeat(b"\r\n" * 2000)))
    assert isinstance(await failure(make(read_s=0.3), server.url), Malformed | TimedOut)


@pytest.mark.slow
async def test_more_headers_than_any_server_needs_are_refused(make: Make, serve: Serve) -> None:
    many = b"".join(b"x-%d: v\r\n" % number for number in range(200))
    server = await serve(sends(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + many + b"\r\n{}", "wait"))
    assert isinstance(await failure(make(), server.url), Malformed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "pieces"),
    [
        (b"", itertools.repeat(b"H")),
        (b"HTTP/1.1 200 OK\r\nx-h: ", itertools.repeat(b"v")),
        (b"HTTP/1.1 200 OK\r\n", itertools.repeat(b"x-h: v\r\n")),
        (b"", itertools.repeat(b"HTTP/1.1 102 Processing\r\n\r\n")),
    ],
    ids=["status", "value", "headers", "interim"],
)
async def test_a_head_that_drips_is_bounded_by_the_time_for_a_reply(
    make: Make, serve: Serve, start: bytes, pieces: Iterator[bytes]
) -> None:
    error = await failure(make(read_s=0.3), (await serve(drips(start, pieces))).url)
    # The first bytes may already be no HTTP, which is as good.
    assert isinstance(error, TimedOut | Malformed)


async def test_interim_replies_before_the_real_one_are_skipped(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 3 + OK)

    server = await serve(script)
    transport = make()
    assert [await ask(transport, server.url) for _ in range(2)] == [b"{}", b"{}"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>an HTTP/0.9 reply</html>\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        bytes(range(256)) * 4,
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-h: nul\x00nul\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
    ],
    ids=[
        "http-0.9", "tls-alert", "binary", "no-status", "words", "huge-status", "no-colon", "no-name", "nul",
        "ssh", "h2-preface", "h2-frame",
    ],
)  # fmt: skip
async def test_what_is_not_http_is_malformed(make: Make, serve: Serve, garbage: bytes) -> None:
    error = await failure(make(), (await serve(sends(garbage))).url)
    assert isinstance(error, Malformed | ConnectFailed)
    assert error.retryable


@pytest.mark.parametrize("value", [b"caf\xe9 \xff", "zażółć".encode(), b"tab\there", b"\x7f"])
async def test_odd_characters_in_a_header_harm_nobody(make: Make, serve: Serve, value: bytes) -> None:
    content = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: " + value + b"\r\n\r\n{}"
    with contextlib.suppress(Malformed):
        assert await ask(make(), (await serve(sends(content))).url) == b"{}"


# -- the length of a body ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (b"content-length: -1", b"{}"),
        (b"content-length: two", b"{}"),
        (b"content-length: 2\r\ncontent-length: 3", b"{}x"),
        (b"content-length: 99999999999999999999999999", b"{}"),
        (b"content-length: 2,2,2", b"{}"),
        (b"transfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        (b"transfer-encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"),
        (b"transfer-encoding: chunked", b"2\r\n{}XX0\r\n\r\n"),
        (b"transfer-encoding: chunked", b"ffffffffffffffffffffff\r\n{}"),
        (b"transfer-encoding: chunked", b"2\r\n{}\r\n"),
        (b"transfer-encoding: chunked", b"2" + b"0" * 20000 + b"\r\n"),
        (b"transfer-encoding: chunked", b"2;" + b"x" * 200_000 + b"\r\n{}\r\n0\r\n\r\n"),
        (b"transfer-encoding: gzip", b"{}"),
        (b"transfer-encoding: chunked\r\ncontent-length: 2", b"{}"),
    ],
    ids=[
        "negative", "words", "two", "huge", "list", "no-hex", "negative-chunk", "no-end", "huge-chunk", "cut",
        "long-size", "long-extension", "unknown", "both",
    ],
)  # fmt: skip
async def test_a_false_length_is_an_error_or_the_very_body(make: Make, serve: Serve, lines: bytes, body: bytes) -> None:
    server = await serve(sends(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n" + body))
    before = open_sockets()
    transport = make()
    try:
        async with asyncio.timeout(30):
            assert await ask(transport, server.url) == b"{}"
    except (Malformed, Truncated):
        await back_to(before)


async def test_endless_trailers_are_refused(make: Make, serve: Serve) -> None:
    start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    server = await serve(floods(start, itertools.repeat(b"x-trailer: v\r\n" * 100)))
    assert isinstance(await failure(make(max_body_bytes=100_000), server.url), Malformed | Truncated)


async def test_a_body_longer_than_it_says_is_cut_and_never_read_as_the_next_reply(make: Make, serve: Serve) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

    async def script(exchange: Exchange) -> None:
        await exchange.send(OK + evil)

    server = await serve(script)
    transport = make()
    for _ in range(4):
        try:
            assert await ask(transport, server.url) == b"{}"
        except Malformed:
            continue  # what was left over was noticed when it was to be the next reply


@pytest.mark.slow
async def test_a_body_that_drips_goes_on_while_it_is_never_silent(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        for _ in range(20):
            await asyncio.sleep(0.02)
            await exchange.piece(b"x")
        await exchange.end()

    assert await ask(make(read_s=0.2), (await serve(script)).url) == b"x" * 20


# -- redirects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
async def test_a_key_never_follows_a_redirect(make: Make, serve: Serve, status: int) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(200, {})

    elsewhere = await serve(answer)

    async def redirect(exchange: Exchange) -> None:
        await exchange.reply(status, b"", {"location": f"{elsewhere.url}/v1/x"})

    server = await serve(redirect)
    reply = await make().open(HttpCall("POST", f"{server.url}/v1/x", {"authorization": KEY}, b"{}"))
    await reply.read()
    assert reply.status == status
    assert (len(server.exchanges), elsewhere.exchanges, elsewhere.connections) == (1, [], 0)


# -- TLS on the wrong port, proxies that fail --------------------------------------------------------------------------


async def test_tls_spoken_to_a_plain_port_names_the_scheme(make: Make) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(make(), f"https://127.0.0.1:{port}")
    assert isinstance(error, ConnectFailed)
    assert "check the scheme and the port of provider.base_url" in error.message


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (b"", ConnectFailed),
        (b"garbage\r\n\r\n", Malformed | ConnectFailed),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", ConnectFailed),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nsorry", ConnectFailed),
        (b"HTTP/1.1 200 Connection established\r\n\r\nnot TLS at all", ConnectFailed),
    ],
    ids=["closes", "garbage", "407", "502", "no-tls"],
)
async def test_a_tunnel_that_fails_is_a_failed_connection(make: Make, serve: Serve, said: bytes, kinds: Any) -> None:
    server = await serve(sends(said))
    proxy = server.url.replace("://", "://user:canary@")
    error = await failure(make(proxy=proxy), "https://api.example.invalid")
    assert isinstance(error, kinds)
    assert re.search("canary|dXNlcjpjYW5hcnk", error.message) is None
    assert "authorization" not in server.exchanges[0].headers


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxys_user_and_password_go_to_the_proxy_with_each_request(
    make: Make, serve: Serve, scheme: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(502 if scheme == "https" else 200, {})

    server = await serve(script)
    transport = make(proxy=server.url.replace("://", "://user:p%40ss@"))
    for _ in range(2):
        try:
            await ask(transport, f"{scheme}://api.example.invalid")
        except ConnectFailed:
            assert scheme == "https"
    sent = [exchange.headers.get("proxy-authorization") for exchange in server.exchanges]
    assert sent == ["Basic dXNlcjpwQHNz"] * 2


@pytest.mark.slow
async def test_a_proxy_that_says_nothing_is_given_up(make: Make, serve: Serve) -> None:
    server = await serve(sends(b"", "wait"))
    error = await failure(make(proxy=server.url, read_s=0.2), "https://api.example.invalid")
    assert isinstance(error, TimedOut)


async def test_a_proxy_that_is_not_there_is_named_without_its_password(make: Make) -> None:
    error = await failure(make(proxy="http://user:canary@127.0.0.1:9"), "https://api.example.invalid")
    assert isinstance(error, ConnectFailed)
    assert "the proxy http://127.0.0.1:9" in error.message
    assert "provider.transport.proxy" in error.message
