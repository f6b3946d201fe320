"""Streams under torture: against `httpx-sse`, cut anywhere, through every streaming dialect, over both transports."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import example, given
from hypothesis import strategies as st

from engine import Engine, Request
from engine.core.errors import InferenceError, Malformed, TimedOut, Truncated
from engine.core.registry import DIALECTS, SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.dialects.client import ChoiceStreams
from engine.dialects.codecs.ndjson import NdjsonDecoder
from engine.dialects.codecs.sse import Event, SseDecoder
from engine.dialects.server import ClientCall
from tests.servers.replies import chunk
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]
STREAMING = {"openai": "chat", "anthropic": "chat", "gemini": "chat", "ollama": "chat", "tgi": "completion"}


def decoded(stream: bytes, cuts: list[int]) -> list[Event]:
    decoder = SseDecoder()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [event for start, stop in itertools.pairwise(places) for event in decoder.feed(stream[start:stop])]


def by_httpx_sse(stream: bytes, cuts: list[int]) -> list[tuple[str, str]]:
    """The events that `httpx-sse` finds; it names an event without a name `message`."""
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(places)]
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
    return [(event.event, event.data) for event in EventSource(response).iter_sse()]


# -- against httpx-sse -------------------------------------------------------------------------------------------------

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
texts = st.text(st.characters(exclude_characters="\r\n\0\ufeff", exclude_categories=["Cs"]), max_size=12)
lines = st.one_of(
    texts.map(lambda text: b"data: " + text.encode()),
    texts.map(lambda text: b"data:" + text.encode()),
    st.sampled_from(
        [b"data", b"data:", b": comment", b":", b"id: 7", b"retry: 10", b"retry: x", b"event", b"datax: no"]
    ),
    st.sampled_from(["error", "message", "content_block_delta", "ping"]).map(lambda name: b"event: " + name.encode()),
    texts.map(lambda text: text.encode()),
    st.just(b""),
)


@pytest.mark.slow
@given(
    stream=st.lists(st.tuples(lines, ends).map(b"".join), max_size=30).map(b"".join),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
@example(stream=b"event: error\nevent\ndata: a\n\n", cuts=[])
def test_the_same_events_as_httpx_sse_finds(stream: bytes, cuts: list[int]) -> None:
    ours = [(name.decode() or "message", data.decode()) for name, data in decoded(stream, cuts)]
    # It also dispatches events without data (an id or a name alone), which the standard does not.
    theirs = [(name, data) for name, data in by_httpx_sse(stream, cuts)]
    assert [event for event in ours if event[1]] == [event for event in theirs if event[1]]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_a_stream_cut_at_every_byte_gives_the_same_events(start: bytes, end: bytes) -> None:
    lines = [
        b": hello",
        b"event: a",
        b"id: 1",
        "data: zażółć 😀".encode(),
        b"data",
        b"",
        b"retry: 5",
        b"data:x",
        b"",
        b"",
    ]
    stream = start + end.join(lines)
    whole = decoded(stream, [])
    assert whole == [(b"a", "zażółć 😀\n".encode()), (b"", b"x")]
    assert decoded(stream, list(range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert decoded(stream, [cut]) == whole


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_event_of_ten_megabytes_in_small_pieces_takes_little_more_memory_than_itself() -> None:
    piece, decoder = b"x" * 4096, SseDecoder()
    tracemalloc.start()
    decoder.feed(b"data: ")
    for _ in range(10 * 256):
        decoder.feed(piece)
    (event,) = decoder.feed(b"\n\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(event.data) == 10 * 256 * 4096
    assert peak < 4 * len(event.data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", [b"x" * 65536, b"data: x\n" * 8192, b": x\n" * 16384], ids=["line", "lines", "comments"]
)
def test_an_event_without_end_never_fills_the_memory(piece: bytes) -> None:
    decoder = SseDecoder(1 << 20)
    tracemalloc.start()
    decoder.feed(b"data: ")
    for _ in range(64):  # 4 MB
        decoder.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoder.oversized or piece.startswith(b":")
    assert peak < 6 << 20


def test_lines_without_data_count_against_the_limit_too() -> None:
    decoder = SseDecoder(1000)
    for _ in range(1001):
        decoder.feed(b"data\n")
    assert decoder.oversized


@pytest.mark.slow
def test_a_line_of_json_without_end_never_fills_the_memory() -> None:
    decoder = NdjsonDecoder(1 << 20)
    tracemalloc.start()
    for _ in range(64):
        decoder.feed(b"x" * 65536)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoder.oversized
    assert peak < 3 << 20


# -- through the dialects ----------------------------------------------------------------------------------------------


def stream_of(dialect: str) -> bytes:
    """A whole stream of this wire, made by its server dialect."""
    task, server = STREAMING[dialect], SERVER_DIALECTS.get(dialect)()
    encoder = server.stream_encoder(ClientCall(task, {}, True, "m", None))
    made = b""
    for text, reason in (("Zażółć ", None), ("gęślą 😀", None), (None, "stop")):
        body = chunk(text, reason)
        if task == "completion":
            body["choices"] = [{"index": 0, "text": text or "", "finish_reason": reason}]
        made += encoder.chunk(Chunk(body))
    return made + encoder.end()


def chunks_of(dialect: str, pieces: list[bytes]) -> list[Chunk]:
    client = DIALECTS.get(dialect)()
    if isinstance(client, ChoiceStreams):
        client.stream_end = "both"
    decoder = client.stream_decoder(STREAMING[dialect])
    return [each for piece in pieces for each in decoder.feed(piece)] + decoder.finish()


def answer_of(dialect: str, pieces: list[bytes]) -> str:
    choices = [choice for each in chunks_of(dialect, pieces) for choice in each.body["choices"]]
    if STREAMING[dialect] == "chat":
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    return "".join(choice["text"] or "" for choice in choices)


@pytest.mark.parametrize("dialect", STREAMING)
def test_an_answer_is_the_same_in_pieces_of_one_byte_and_cut_anywhere(dialect: str) -> None:
    stream = stream_of(dialect)
    assert answer_of(dialect, [stream]) == "Zażółć gęślą 😀"
    assert answer_of(dialect, [stream[at : at + 1] for at in range(len(stream))]) == "Zażółć gęślą 😀"
    for cut in range(0, len(stream), 7):
        assert answer_of(dialect, [stream[:cut], stream[cut:]]) == "Zażółć gęślą 😀"


@pytest.mark.parametrize("dialect", STREAMING)
def test_a_stream_that_ends_before_its_terminator_is_never_a_clean_end(dialect: str) -> None:
    stream = stream_of(dialect)
    whole = 0
    for cut in range(len(stream) - 1):
        with contextlib.suppress(InferenceError):
            assert answer_of(dialect, [stream[:cut]]) == "Zażółć gęślą 😀"
            whole += 1
    # Only what follows the terminator's last meaningful byte may be missing: its line ends.
    assert whole <= 4


@pytest.mark.parametrize("dialect", STREAMING)
@given(noise=st.binary(max_size=60), at=st.integers(0, 2000))
def test_noise_within_a_stream_gives_a_typed_error_or_an_answer(dialect: str, noise: bytes, at: int) -> None:
    stream = stream_of(dialect)
    at %= len(stream)
    # Noise may rename a field, which is passed on as it came: only what a chunk is can be asked of it.
    with contextlib.suppress(InferenceError):
        assert all(isinstance(each.body, dict) for each in chunks_of(dialect, [stream[:at] + noise + stream[at:]]))


# -- over the wire -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["aiohttp", "httpx"])
def words(request: pytest.FixtureRequest) -> list[str]:
    return [
        "provider=llama_cpp", "model=remote", "model.name=m", f"provider.transport.kind={request.param}",
        "provider.transport.trust_env=false", "policy.retry.max_retries=0", "policy/stream=off",
    ]  # fmt: skip


async def streamed(words: list[str], url: str) -> str:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    async with Engine.compose([*words, f"provider.base_url={url}/v1"]) as engine:
        pieces = [
            each.body["choices"][0]["delta"].get("content") or "" async for each in engine.stream(Request("chat", body))
        ]
    return "".join(pieces)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_stream_arrives_event_by_event(words: list[str], serve: Serve, encoding: str) -> None:
    async def script(exchange: Exchange) -> None:
        packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
        await exchange.start({"content-encoding": encoding})
        stream = stream_of("openai")
        for at in range(0, len(stream), 40):
            await exchange.piece(packer.compress(stream[at : at + 40]) + packer.flush(zlib.Z_SYNC_FLUSH))
        await exchange.piece(packer.flush())
        await exchange.end()

    assert await streamed(words, (await serve(script)).url) == "Zażółć gęślą 😀"


@pytest.mark.slow
async def test_a_compressed_stream_that_is_cut_is_truncated(words: list[str], serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(
            200,
            gzip.compress(stream_of("openai"))[:-30],
            {"content-type": "text/event-stream", "content-encoding": "gzip"},
        )

    with pytest.raises((Truncated, Malformed)):
        await streamed(words, (await serve(script)).url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", [b": still here\n\n", b"event: ping\n\n", b"\n", b"data: "], ids=["comments", "names", "blank", "open"]
)
async def test_a_stream_without_an_event_is_given_up_in_time(words: list[str], serve: Serve, piece: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        while not exchange.left.is_set():
            await exchange.piece(piece * 100)

    server = await serve(script)
    with pytest.raises((TimedOut, Malformed)):
        await streamed(
            [*words, "policy.timeout.first_token_s=0.4", "provider.transport.max_body_bytes=50000000"], server.url
        )


@pytest.mark.slow
async def test_an_endless_stream_of_comments_ends_at_the_limit_of_a_body(words: list[str], serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.start()
        while not exchange.left.is_set():
            await exchange.piece(b": still here\n\n" * 1000)

    server = await serve(script)
    with pytest.raises(Malformed, match=r"provider\.transport\.max_body_bytes"):
        await streamed([*words, "provider.transport.max_body_bytes=1000000"], server.url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/octet-stream", "TEXT/EVENT-STREAM; charset=latin-1", None, "\u00e9"], ids=str
)
async def test_a_stream_of_a_wrong_or_no_content_type_is_still_read(
    words: list[str], serve: Serve, kind: str | None
) -> None:
    async def script(exchange: Exchange) -> None:
        lines = b"" if kind is None else b"content-type: " + kind.encode() + b"\r\n"
        stream = stream_of("openai")
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: %d\r\n\r\n" % len(stream) + stream)

    assert await streamed(words, (await serve(script)).url) == "Zażółć gęślą 😀"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
async def test_a_page_in_place_of_a_stream_is_malformed_and_quoted(words: list[str], serve: Serve, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"<html>\xff\xfe Log in first</html>", {"content-type": kind})

    with pytest.raises(Malformed, match="Log in first"):
        await streamed(words, (await serve(script)).url)
