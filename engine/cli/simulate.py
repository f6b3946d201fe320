"""`engine simulate`: the simulated provider as a server on loopback, for any client."""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import TYPE_CHECKING

from engine.cli.command import OVERRIDES, Command, whole_number
from engine.core.errors import ConfigError

if TYPE_CHECKING:
    from engine.schemas import RunSpec


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address that it listens on")
    parser.add_argument(
        "--port", type=whole_number(0, highest=65535), default=8000, help="TCP port; 0 takes a free one"
    )


COMMAND = Command(
    summary="serve the simulated provider on loopback, in every wire, until Ctrl-C",
    words=OVERRIDES,
    flags=_flags,
    examples=(
        "simulate",
        "simulate provider/faults=rate_limited --port 0",
        "simulate provider.latency_s=0.5 provider.capacity.concurrency=8",
    ),
    exit_codes=(0, 2, 4),
)


def main(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM; then exit code 0. Raises ConfigError, and SetupError for a port that is taken."""
    from engine.config.compose import compose

    words: list[str] = arguments.words
    if not any(word.partition("=")[0] == "provider" for word in words):
        words = ["provider=simulated", *words]
    spec = compose(words, arguments.config_dir).spec
    asyncio.run(_serve(spec, arguments.host, arguments.port))
    return 0


async def _serve(spec: RunSpec, host: str, port: int) -> None:
    from engine.simulation.server import COUNTERS_PATH, SimulatedServer
    from engine.simulation.wire import WIRES

    provider = spec.provider
    if provider.kind != "simulated":
        raise ConfigError(
            f"simulate provider={provider.name}: only a simulated provider can be served; provider=simulated"
        )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    model = spec.targets[0].model_id
    async with SimulatedServer(provider, model=model, seed=spec.seed, host=host, port=port) as server:
        print(f"simulated provider on {server.url}", flush=True)
        for wire, (name, prefix) in WIRES.items():
            print(f"  {wire}: provider={name} provider.base_url={server.url}{prefix} model=remote model.name={model}")
        print(f"  keys: {', '.join(provider.key_names) if provider.keys else 'any, or none'}")
        print(f"  what happened: {server.url}{COUNTERS_PATH}", flush=True)
        await stopped.wait()
