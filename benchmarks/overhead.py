"""The cost of the engine: CPU a request and a streamed chunk, every policy on, next to bare clients and other gateways.

    python benchmarks/overhead.py [--peers PYTHON] [--rounds N] [--only WORD …]

The server is nginx on loopback, which always sends the same completion with a provider's headers. Contenders are
processes of their own that run in turn, 64 calls in flight. A figure is the client's CPU time, user and system, over
all its threads and children. Rates are those of a machine that the server shares.

`--peers` is a Python that has the peers' packages; without it an environment is made below benchmarks/.peers. `--only`
takes the tables and contenders whose names have a word of it, and what they are compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contest import Contender, machine
from overhead import paced, peers, server
from overhead.load import IN_FLIGHT, answer_rounds


@dataclass
class Entry:
    """A contender: `module:function` below `overhead`, its arguments, and the calls of a round."""

    maker: str
    calls: int
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def is_peer(self) -> bool:
        """True if it needs the peers' packages, not ours."""
        return self.maker.startswith("peers:") or "httpx2" in self.arguments.values()

    def command(self, python: str, origin: str) -> list[str]:
        me = str(Path(__file__).resolve())
        return [python, me, "--contender", self.maker, json.dumps(self.arguments), origin, str(self.calls)]


@dataclass
class Table:
    """Contenders that do the same work, in µs of CPU a `unit`."""

    title: str
    unit: str
    bases: tuple[str, ...]
    """The contender that the others are compared with."""
    entries: dict[str, Entry]
    server: str = "nginx"
    difference: bool = False
    """Compared by subtraction: the base is the work that all contenders share."""


def tables() -> list[Table]:
    bulk = {"path": "stream", "stream": True}
    each = {"path": "v1", "stream": True}
    stream = {"stream": True}
    return [
        Table(
            f"A chat call, {IN_FLIGHT} in flight",
            "request",
            ("bare aiohttp", "TensorZero embedded"),
            {
                "bare aiohttp": Entry("bare:aiohttp_client", 5000),
                "engine, aiohttp": Entry("ours:over_http", 5000),
                "TensorZero embedded": Entry("peers:tensorzero", 3000),
                "bare httpx2": Entry("bare:httpx_client", 1500, {"module": "httpx2"}),
                "bare httpx": Entry("bare:httpx_client", 800),
                "engine, httpx": Entry("ours:over_http", 800, {"transport": "httpx"}),
                "OpenAI SDK": Entry("peers:openai_sdk", 800),
                "LiteLLM Router": Entry("peers:litellm_router", 250),
            },
        ),
        Table(
            f"The chain alone, {IN_FLIGHT} in flight",
            "request",
            ("nothing",),
            {
                "nothing": Entry("ours:nothing", 40_000),
                "engine over nothing, no policy": Entry("ours:over_nothing", 20_000, {"policy": False}),
                "engine over nothing, every policy": Entry("ours:over_nothing", 20_000),
            },
            server="none",
            difference=True,
        ),
        Table(
            f"A stream of {server.CHUNKS} chunks that come at once, {IN_FLIGHT} in flight",
            "chunk",
            ("bare aiohttp", "TensorZero embedded"),
            {
                "bare aiohttp": Entry("bare:aiohttp_client", 192, bulk),
                "engine, aiohttp": Entry("ours:over_http", 192, bulk),
                "TensorZero embedded": Entry("peers:tensorzero", 128, bulk),
                "OpenAI SDK": Entry("peers:openai_sdk", 64, bulk),
            },
        ),
        Table(
            f"A stream of {server.CHUNKS} chunks, one each {paced.TICK_S * 1000:g} ms, {IN_FLIGHT} in flight",
            "chunk",
            ("bare aiohttp",),
            {
                "bare aiohttp": Entry("bare:aiohttp_client", 64, each),
                "engine, aiohttp": Entry("ours:over_http", 64, each),
            },
            server="paced",
        ),
        Table(
            f"A stream of {server.CHUNKS} chunks over the chain alone, {IN_FLIGHT} in flight",
            "chunk",
            ("nothing",),
            {
                "nothing": Entry("ours:nothing", 1000, stream),
                "engine over nothing, no policy": Entry("ours:over_nothing", 300, {"policy": False, **stream}),
                "engine over nothing, every policy": Entry("ours:over_nothing", 300, stream),
            },
            server="none",
            difference=True,
        ),
    ]


def chosen(words: list[str]) -> list[Table]:
    """Returns the requested tables, with the requested contenders."""
    found = tables()
    for table in found:
        if words and not any(word in table.title for word in words):
            keep = {name: entry for name, entry in table.entries.items() if any(word in name for word in words)}
            with_bases = {name: entry for name, entry in table.entries.items() if name in keep or name in table.bases}
            table.entries = with_bases if keep else {}
    return [table for table in found if table.entries]


def compare(table: Table, python: str, origin: str, rounds: int) -> str:
    """Runs a table's contenders in turn. Returns Markdown: CPU with its spread, the comparisons, the rate."""
    running = {
        name: Contender(name, entry.command(python if entry.is_peer else sys.executable, origin))
        for name, entry in table.entries.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, contender in running.items():
            contender.measure()
            rates[name].append(float(contender.extra["rate"]))  # type: ignore[arg-type]
    for contender in running.values():
        contender.close()
    bases = [base for base in table.bases if base in running]
    sign = "−" if table.difference else "×"
    heads = [f"µs CPU a {table.unit}, median (min–max)", *(f"{sign} {base}" for base in bases), f"{table.unit}s/s"]
    lines = [f"### {table.title}", "", f"| contender | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for name, contender in running.items():
        figure, low, high = contender.median, min(contender.figures), max(contender.figures)
        cells = [f"{figure:,.1f} ({low:,.1f}–{high:,.1f})"]
        for base in bases:
            other = running[base].median
            cells.append(f"{figure - other:,.1f}" if table.difference else f"{figure / other:.2f}")
        lines.append(f"| {name} | {' | '.join([*cells, f'{statistics.median(rates[name]):,.0f}'])} |")
    return "\n".join([*lines, ""])


@contextmanager
def paced_server() -> Iterator[str]:
    """Yields the origin of a process that serves paced streams."""
    command = [sys.executable, str(Path(__file__).resolve()), "--paced"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="a Python that has " + ", ".join(peers.PACKAGES))
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender (default 7)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="part of a table's or contender's name")
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--paced", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.paced:
        asyncio.run(paced.serve_paced())
    elif options.contender:
        maker, arguments, origin, calls = options.contender
        module, _, function = maker.partition(":")
        make = getattr(importlib.import_module(f"overhead.{module}"), function)
        asyncio.run(answer_rounds(make(**json.loads(arguments)), origin, int(calls)))
    else:
        publish(chosen(options.only), options.peers, options.rounds)


def publish(wanted: list[Table], python: str | None, rounds: int) -> None:
    from overhead.ours import described

    needs_peers = any(entry.is_peer for table in wanted for entry in table.entries.values())
    python = python or (peers.peers_python() if needs_peers else sys.executable)
    print(f"{machine('aiohttp', 'httpx', 'msgspec')}; nginx {server.version()}", end="")
    print(f"; {peers.versions(python)}" if needs_peers else "")
    print(f"every policy: {described()}\n", flush=True)
    with server.nginx() as nginx, paced_server() as ticking:
        origins = {"nginx": nginx, "paced": ticking, "none": "http://127.0.0.1:9"}
        for table in wanted:
            print(compare(table, python, origins[table.server], rounds), flush=True)


if __name__ == "__main__":
    main()
