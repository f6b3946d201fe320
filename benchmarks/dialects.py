"""The cost of the dialects: CPU time of encoding and decoding, with no socket and no engine around them.

    python -m benchmarks.dialects [--rounds 7]

Three tables, each from one run:

- a chat call: the canonical body to the wire's bytes, and the wire's reply to the canonical one, of each dialect;
- a piece of a streamed answer, of each dialect;
- a reply of 256 vectors of 1,536 numbers, against `json.loads` into lists, which is what a plain client does.

The replies are made by our own server directions, from one answer of 200 words. Each figure is the least of several
rounds: everything else is the machine's other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from engine.core.registry import DIALECTS, SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.server import ClientCall
from engine.tasks import embedding

WORDS = 200
VECTORS, NUMBERS = 256, 1536
TEXT = "The quick brown fox jumps over the lazy dog. " * (WORDS // 9)
BODY: dict[str, Any] = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}],
    "temperature": 0.2,
    "max_tokens": 300,
    "stop": ["END"],
}
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m"}
USED = {"prompt_tokens": 210, "completion_tokens": 200, "total_tokens": 410}
REPLY: dict[str, Any] = {
    **HEAD,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": USED,
}
SERVERS = {"tgi": "openai"}
"""Dialect → the one whose server makes its replies, if that is another: TGI's chat uses OpenAI's path."""
CHAT_GOAL_US, CHUNK_GOAL_US, VECTORS_GOAL = 15.0, 5.0, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of which the quickest counts")
    rounds = parser.parse_args().rounds
    print(f"Python {platform.python_version()}, msgspec {msgspec.__version__}, {platform.machine()}\n")
    print(f"| dialect | encode | decode | both, of {CHAT_GOAL_US:g} µs | a piece, of {CHUNK_GOAL_US:g} µs |")
    print("|---|---|---|---|---|")
    for name in DIALECTS.kinds():
        if "chat" in DIALECTS.get(name).tasks and name in SERVER_DIALECTS.kinds():
            print(_row(name, rounds))
    print()
    _vectors(rounds)


def _row(name: str, rounds: int) -> str:
    dialect = DIALECTS.get(name)(lambda: 0.0)
    content, stream = _wire(name)
    encode = _least(lambda: dialect.encode("chat", BODY, model="m", stream=False), 2000, rounds)
    headers = {"content-type": "application/json", "x-request-id": "req_1"}
    decode = _least(lambda: dialect.decode("chat", 200, headers, content), 2000, rounds)

    def read() -> None:
        decoder = dialect.stream_decoder("chat")
        count = sum(len(decoder.feed(piece)) for piece in stream)
        assert count + len(decoder.finish()) >= WORDS

    piece = _least(read, 20, rounds) / len(stream)
    return f"| {name} | {encode:.1f} µs | {decode:.1f} µs | {encode + decode:.1f} µs | {piece:.2f} µs |"


def _wire(name: str) -> tuple[bytes, list[bytes]]:
    """Returns a reply, and the pieces of a stream, as a server of this dialect sends them."""
    server = SERVER_DIALECTS.get(SERVERS.get(name, name))()
    whole = ClientCall("chat", dict(BODY), False, "m", None)
    streamed = ClientCall("chat", {**BODY, "stream_options": {"include_usage": True}}, True, "m", None)
    encoder = server.stream_encoder(streamed)
    chunk = {**HEAD, "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": "word "} for _ in range(WORDS))]
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    pieces = [encoder.chunk(Chunk({**chunk, "choices": each})) for each in choices]
    pieces.append(encoder.chunk(Chunk({**chunk, "choices": [], "usage": USED}, Usage(210, 200))) + encoder.end())
    return server.reply(whole, REPLY), [piece for piece in pieces if piece]


def _vectors(rounds: int) -> None:
    draw = random.Random(0)
    rows = [[round(draw.gauss(0, 0.02), 9) for _ in range(NUMBERS)] for _ in range(VECTORS)]
    plain = _embeddings(rows)
    packed = _embeddings([b64encode(array("f", row).tobytes()).decode() for row in rows])
    dialect = DIALECTS.get("openai")(lambda: 0.0)
    asked = ["x"] * VECTORS

    def product(content: bytes) -> Any:
        reply = dialect.decode("embedding", 200, {}, content)
        embedding.check_order(reply.body, asked)
        return reply

    loads = _least(lambda: json.loads(plain), 1, rounds)
    print(f"| {VECTORS} × {NUMBERS} numbers | time | json.loads takes, of {VECTORS_GOAL:g} × |")
    print("|---|---|---|")
    print(f"| json.loads | {loads / 1000:.1f} ms | 1.0 × |")
    for name, content in (("decoded, as numbers", plain), ("decoded, as base64", packed)):
        taken = _least(lambda content=content: product(content), 1, rounds)  # type: ignore[misc]
        print(f"| {name} | {taken / 1000:.1f} ms | {loads / taken:.1f} × |")


def _embeddings(vectors: list[Any]) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}}).encode()


def _least(call: Callable[[], Any], times: int, rounds: int) -> float:
    """CPU time of one call in microseconds: the least mean of several rounds. Freeing what the last call gave does not
    count."""
    kept = [call()]
    least = float("inf")
    for _ in range(rounds):
        kept.clear()
        began = time.process_time()
        for _ in range(times):
            kept[:] = (call(),)
        least = min(least, time.process_time() - began)
    return least / times * 1e6


if __name__ == "__main__":
    main()
