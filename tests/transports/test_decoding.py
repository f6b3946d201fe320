"""Content encodings: cut anywhere, broken anywhere, swollen without end."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Malformed, Truncated
from engine.transports.decoding import BodyDecoder
from engine.transports.transport import Transport
from tests.servers.scripted import Exchange, ScriptedServer, head
from tests.transports.test_hostile import ask, failure, floods
from tests.transports.test_hostile import make as make

Serve = Callable[..., Awaitable[ScriptedServer]]
Make = Callable[..., Transport]
TEXT = b'{"answer": "' + b"Paris " * 5000 + b'"}'
ROOT = Path(__file__).resolve().parents[2]


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


FORMS = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": (" X-GZip ", gzip.compress(TEXT)),
    "members": ("gzip", gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:])),
    "padding": ("gzip", gzip.compress(TEXT) + bytes(512)),
    "zlib": ("deflate", zlib.compress(TEXT)),
    "bare": ("deflate", bare(TEXT)),
    "deflate-padding": ("deflate", zlib.compress(TEXT) + b"more"),
}


def decode(encoding: str, pieces: list[bytes]) -> bytes:
    decoder = BodyDecoder(encoding, "http://h:1", 200)
    found = b"".join(part for piece in pieces for part in decoder.feed(piece))
    decoder.finish()
    return found


def script_of(encoding: str, body: bytes) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, body, {"content-encoding": encoding})

    return script


@pytest.mark.parametrize("form", FORMS)
async def test_a_compressed_body_arrives_whole(make: Make, serve: Serve, form: str) -> None:
    server = await serve(script_of(*FORMS[form]))
    transport = make()
    assert [await ask(transport, server.url) for _ in range(2)] == [TEXT, TEXT]
    assert server.connections == 1


@pytest.mark.parametrize("form", FORMS)
@given(size=st.integers(1, 40))
def test_the_cuts_make_no_difference(form: str, size: int) -> None:
    encoding, body = FORMS[form]
    assert decode(encoding, [body[at : at + size] for at in range(0, len(body), size)]) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_empty_body_may_claim_any_encoding(encoding: str) -> None:
    assert decode(encoding, []) == b""


@pytest.mark.parametrize("form", ["gzip", "zlib", "bare", "members"])
async def test_a_compressed_body_that_ends_too_early_is_truncated(make: Make, serve: Serve, form: str) -> None:
    encoding, body = FORMS[form]
    server = await serve(script_of(encoding, body[:-9]))
    with pytest.raises(Truncated, match="ends too early"):
        await ask(make(), server.url)


@given(body=st.binary(max_size=200), encoding=st.sampled_from(["gzip", "deflate"]))
def test_bytes_that_are_not_compressed_give_typed_errors_only(body: bytes, encoding: str) -> None:
    with contextlib.suppress(Malformed, Truncated):
        decode(encoding, [body])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(at=st.integers(0, 60), flip=st.integers(1, 255))
def test_a_byte_changed_anywhere_gives_a_body_or_a_typed_error(encoding: str, at: int, flip: int) -> None:
    body = bytearray(gzip.compress(b"hello world " * 5) if encoding == "gzip" else zlib.compress(b"hello world " * 5))
    body[at % len(body)] ^= flip
    with contextlib.suppress(Malformed, Truncated):
        decode(encoding, [bytes(body)])


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "compress", "x" * 500, "gzip\t,"])
async def test_an_encoding_that_was_not_asked_for_is_refused_by_name(make: Make, serve: Serve, encoding: str) -> None:
    server = await serve(script_of(encoding, gzip.compress(TEXT)))
    with pytest.raises(Malformed) as caught:
        await ask(make(), server.url)
    assert encoding[:4] in caught.value.message
    assert "gzip, deflate" in caught.value.message
    assert len(caught.value.message) < 300


async def test_an_encoding_said_twice_is_refused(make: Make, serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        body = gzip.compress(TEXT)
        lines = b"content-encoding: gzip\r\n" * 2 + b"content-length: %d\r\n\r\n" % len(body)
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + lines + body)

    server = await serve(script)
    with pytest.raises(Malformed, match="gzip, gzip"):
        await ask(make(), server.url)


async def test_identity_is_no_encoding(make: Make, serve: Serve) -> None:
    assert await ask(make(), (await serve(script_of("identity", TEXT))).url) == TEXT


@pytest.mark.parametrize("piece", [gzip.compress(b""), b"\x1f"], ids=["empty-members", "starts"])
async def test_a_compressed_body_that_decodes_to_nothing_for_ever_is_stopped(
    make: Make, serve: Serve, piece: bytes
) -> None:
    start = head(200, {"content-encoding": "gzip"})
    server = await serve(floods(start, itertools.repeat(piece * 200)))
    assert isinstance(await failure(make(max_body_bytes=100_000), server.url), Malformed)


# -- bombs: what a gigabyte of zeros costs -----------------------------------------------------------------------------

BOMB = """
import asyncio, gzip, json, resource, sys, zlib
from engine.core.errors import InferenceError
from engine.core.registry import TRANSPORTS
from engine.transports.transport import HttpCall
from engine.schemas.provider import TransportSpec
sys.path.insert(0, "tests")
from tests.servers.scripted import ScriptedServer

async def main(kind, encoding):
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    start = packer.flush(zlib.Z_FULL_FLUSH)
    bomb = start + (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 1024

    async def script(exchange):
        await exchange.reply(200, bomb, {"content-encoding": encoding})

    async with ScriptedServer(script) as server:
        transport = TRANSPORTS.get(kind)(TransportSpec(kind=kind, trust_env=False, max_body_bytes=64 << 20))
        before, total, error = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, None
        try:
            async for piece in (await transport.open(HttpCall("GET", server.url, {}))).chunks():
                total += len(piece)
        except InferenceError as caught:
            error = caught.as_dict()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        await transport.aclose()
    print(json.dumps({"error": error, "total": total, "grown": grown}))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
def test_a_bomb_of_a_gigabyte_takes_a_few_megabytes_until_it_is_stopped(kind: str, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMB, kind, encoding], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["error"]["kind"] == "malformed"
    assert "provider.transport.max_body_bytes" in found["error"]["message"]
    assert found["total"] <= 64 << 20
    assert found["grown"] < 16 << 20
