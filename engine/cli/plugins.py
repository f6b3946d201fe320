"""`engine plugins`: the installed kinds of each port, and where they come from."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from engine.cli.command import Command, json_flag
from engine.cli.terminal import print_table
from engine.core.registry import PORTS
from engine.core.version import VERSION
from engine.schemas.plugins import PluginError

COMMAND = Command(
    summary="list the kinds of each port: ours and those of installed packages",
    words="[PORT]",
    flags=json_flag,
    examples=("plugins", "plugins dialects", "plugins --json"),
    values=lambda: [port.port for port in PORTS],
)


@dataclass(frozen=True)
class Kind:
    """One kind of a port."""

    port: str
    knob: str
    kind: str
    distribution: str
    module: str
    problem: str | None = None
    """The reason why it can't be used; None: it can."""


def main(arguments: argparse.Namespace) -> int:
    """Returns 4 if an installed kind can't be used, else 0."""
    kinds = [kind for kind in installed() if not arguments.words or kind.port == arguments.words[0]]
    if not kinds:
        from engine.core.errors import ConfigError, nearest

        ports = [port.port for port in PORTS]
        raise ConfigError(f"plugins {arguments.words[0]}: not a port; {nearest(arguments.words[0], ports)}")
    if arguments.json:
        print(json.dumps([asdict(kind) for kind in kinds], indent=2, ensure_ascii=False))
    else:
        heads = ("port", "knob", "kind", "from", "module")
        print_table(heads, [(kind.port, kind.knob, kind.kind, kind.distribution, kind.module) for kind in kinds])
        for kind in kinds:
            if kind.problem:
                print(f"FAIL {kind.problem}")
    return 4 if any(kind.problem for kind in kinds) else 0


def installed() -> list[Kind]:
    """Returns every kind of every port. Imports the plug-ins, not our own."""
    kinds = []
    for port in PORTS:
        own = f"ipfs-accelerate {VERSION}"
        kinds += [Kind(port.port, port.knob, kind, own, where) for kind, where in port.builtin.items()]
        for kind, plugin in port.plugins().items():
            problem = None
            try:
                plugin.spec()
            except PluginError as error:
                problem = str(error)
            kinds.append(Kind(port.port, port.knob, kind, plugin.distribution, plugin.entry.value, problem))
    return kinds
