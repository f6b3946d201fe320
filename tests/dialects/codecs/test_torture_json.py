"""Bodies that nobody should send, to every dialect in both directions: a reply or a typed error, soon, never a crash.

The corpus is Nicolas Seriot's JSON Parsing Test Suite; json_test_suite.tsv says where from.
"""

from __future__ import annotations

import contextlib
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError
from engine.core.registry import DIALECTS, SERVER_DIALECTS

HEADERS = {"content-type": "application/json"}
LIMIT_S = 5.0
"""CPU time for one body; the largest is half a megabyte."""


def small() -> dict[str, bytes]:
    lines = (Path(__file__).parent / "json_test_suite.tsv").read_text().splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: b64decode(coded) for name, coded in pairs}


LARGE = {
    "n_structure_100000_opening_arrays": b"[" * 100_000,
    "n_structure_open_array_object": b'[{"":' * 50_000 + b"\n",
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep errors": b'{"error":' * 20_000 + b'"x"' + b"}" * 20_000,
    "long number": b"[" + b"1" * 300_000 + b"]",
    "long exponent": b"[1e" + b"9" * 300_000 + b"]",
    "long string": b'["' + b"a" * 500_000 + b'"]',
    "many escapes": b'["' + rb"\u0041" * 80_000 + b'"]',
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}",
    "same keys": b"{" + b",".join([b'"error":{"message":"x"}'] * 20_000) + b"}",
    "many errors": b"[" + b",".join([b'{"error":{"message":"try again in 1s"}}'] * 2_000) + b"]",
    "a hint without end": b'{"error":{"message":"try again in ' + b"1m " * 50_000 + b'"}}',
}
WRAPS = (
    b"%s",
    b'{"choices":%s}',
    b'{"choices":[{"index":0,"message":%s,"delta":%s,"finish_reason":"stop"}]}',
    b'{"content":%s,"type":"message","message":%s}',
    b'{"candidates":[{"content":%s}],"usageMetadata":%s}',
    b'{"error":%s}',
    b'{"error":{"message":%s,"code":%s,"details":%s}}',
    b'{"data":[%s],"usage":%s}',
    b'{"outputs":[%s],"embeddings":%s,"predictions":%s}',
    b'{"messages":%s,"model":"m"}',
    b'{"messages":[{"role":"user","content":%s}],"model":"m","stream":%s}',
    b'{"inputs":%s,"parameters":%s}',
    b'{"contents":[%s],"input":%s,"prompt":%s}',
)


def bodies() -> Iterator[bytes]:
    for value in small().values():
        for wrap in WRAPS:
            yield wrap.replace(b"%s", value)


def usable(registry: Any, kind: str) -> Any:
    """The dialect; the test is skipped where its package is not installed."""
    try:
        return registry.get(kind)()
    except ImportError as error:
        pytest.skip(f"{kind} needs {error.name}")


def expect_typed(call: Callable[[], object], body: bytes) -> None:
    """Fails for anything but a typed error, and for one that took too long."""
    started = time.process_time()
    with contextlib.suppress(InferenceError):
        call()
    taken = time.process_time() - started
    assert taken < LIMIT_S, f"{taken:.1f} s for {body[:80]!r}"


def read_by_client(dialect: Any, body: bytes) -> None:
    for task in sorted(dialect.tasks):
        for status in (200, 400):
            expect_typed(lambda: dialect.decode(task, status, HEADERS, body), body)  # noqa: B023 - called at once
    for status in (200, 429):
        made: list[InferenceError] = []
        expect_typed(lambda: made.append(dialect.error(status, HEADERS, body)), body)  # noqa: B023 - called at once
        for error in made:
            assert len(error.message) < 5000
            msgspec.json.encode(error.as_dict())
    expect_typed(lambda: dialect.models(body), body)


def read_as_stream(dialect: Any, body: bytes) -> None:
    for task in sorted(dialect.tasks):
        try:
            dialect.stream_decoder(task)
        except InferenceError:
            continue
        for stream in (b"data: " + body + b"\n\n", b"event: error\ndata: " + body + b"\r\n\r\n", body + b"\n"):

            def run(task: str = task, stream: bytes = stream) -> None:
                decoder = dialect.stream_decoder(task)
                middle = len(stream) // 2
                decoder.feed(stream[:middle])
                decoder.feed(stream[middle:])
                decoder.finish()

            expect_typed(run, body)


def read_by_server(dialect: Any, body: bytes) -> None:
    for (method, path), task in dialect.routes.items():
        if method == "POST" and task != "models":
            where = path.replace("{model}", "m").replace("{version}", "1")
            parts = {"model": "m", "version": "1"}
            expect_typed(lambda: dialect.read(where, parts, HEADERS, body), body)  # noqa: B023 - called at once


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIALECTS.kinds())
def test_any_json_as_a_reply(kind: str) -> None:
    dialect = usable(DIALECTS, kind)
    for body in bodies():
        read_by_client(dialect, body)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIALECTS.kinds())
def test_any_json_as_a_stream(kind: str) -> None:
    dialect = usable(DIALECTS, kind)
    for body in bodies():
        read_as_stream(dialect, body)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVER_DIALECTS.kinds())
def test_any_json_as_a_request(kind: str) -> None:
    dialect = usable(SERVER_DIALECTS, kind)
    for body in bodies():
        read_by_server(dialect, body)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_or_deep_body_to_every_dialect(name: str) -> None:
    body = LARGE[name]
    for kind in DIALECTS.kinds():
        with contextlib.suppress(ImportError):
            dialect = DIALECTS.get(kind)()
            read_by_client(dialect, body)
            read_as_stream(dialect, body)
    for kind in SERVER_DIALECTS.kinds():
        with contextlib.suppress(ImportError):
            read_by_server(SERVER_DIALECTS.get(kind)(), body)
