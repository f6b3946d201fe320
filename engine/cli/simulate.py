"""`engine simulate`: the simulated provider as a server on loopback, for any client."""

from __future__ import annotations

import argparse
import asyncio
import signal

from engine.config.compose import compose
from engine.core.errors import ConfigError
from engine.schemas import RunSpec


def main(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM; then exit code 0. Raises ConfigError, and SetupError for a port that is taken."""
    words: list[str] = arguments.words
    if not any(word.partition("=")[0] == "provider" for word in words):
        words = ["provider=simulated", *words]
    spec = compose(words, arguments.config_dir).spec
    if not 0 <= arguments.port <= 65535:
        raise ConfigError(f"--port {arguments.port}: expected 0 … 65535; 0 takes a free port")
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
