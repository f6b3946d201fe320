"""The verbs of the command line, and their commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from engine.cli.command import Command

VERBS = {
    "run": "answer a workload (the verb that may be left out)",
    "ask": "answer one question, streamed",
    "chat": "talk with a model",
    "plan": "show what a run or a sweep would do, without doing it",
    "check": "reach each target with each key",
    "schema": "print the JSON Schema of a group, or of the whole run",
    "plugins": "list the installed kinds of each port, and where they come from",
    "simulate": "serve the simulated provider on loopback, for any client",
    "artifacts": "fetch models, get and put objects of S3 stores, look after the cache",
    "runs": "list, show, compare, report, resume, cancel and prune earlier runs",
    "matrix": "build every model type small and run it on each hardware",
    "bench": "measure the seed's rows, or what quantization does to a model",
    "completion": "print the completion script of bash, zsh or fish",
}
"""Verb → summary. The module `engine.cli.VERB` has `COMMAND`, or `COMMANDS` by sub-verb, and `main(arguments)`."""


def commands_of(verb: str) -> Mapping[str, Command]:
    """Returns the commands of a verb by their names as typed: `plan`, or `runs list`, `runs show`, …"""
    module = import_module(f"engine.cli.{verb}")
    subverbs: Mapping[str, Command] | None = getattr(module, "COMMANDS", None)
    if subverbs is None:
        return {verb: module.COMMAND}
    return {f"{verb} {name}": command for name, command in subverbs.items()}


def all_commands() -> Iterator[tuple[str, Command]]:
    """Yields every command with its name as typed. Imports the module of each verb."""
    for verb in VERBS:
        yield from commands_of(verb).items()
