"""`engine check`: reach each target and say of each key where it was found, whether it works, and its limits."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from engine.cli.command import OVERRIDES, Command, json_flag
from engine.cli.terminal import coloured, plain_table, print_json

if TYPE_CHECKING:
    from engine.cli.check_targets import Line
    from engine.core.request import RateHints
    from engine.executors.key_check import KeyCheck

_HEADS = ("key", "found in", "works", "limits seen", "what was found")
_CODES = {"works": 0, "unverified": 3, "failed": 4}
_STATES = {"works": ("ok  ", "green"), "unverified": ("?   ", "yellow"), "failed": ("FAIL", "red")}
_WORDS = {"works": "yes", "unverified": "not verified", "failed": "no"}
_UNITS = ("requests", "tokens", "input_tokens", "output_tokens")


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="check every provider for which a key is found")
    json_flag(parser)


COMMAND = Command(
    summary="reach each target with each key, and show where the key was found, whether it works, and its limits",
    words=OVERRIDES,
    flags=_flags,
    examples=("check provider=openai", "check --all", "check provider=groq 'fallbacks=[{provider: ollama}]' --json"),
    exit_codes=(0, 2, 3, 4),
    means={
        0: "every target works with every key",
        3: "nothing failed, but nothing shows that some target would answer",
        4: "a target failed",
    },
)


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if every target works with every key, 3 if one is not verified, 4 if one fails. Raises ConfigError,
    SetupError."""
    from engine.cli import check_targets

    specs, problems = check_targets.chosen(arguments.words, arguments.config_dir, arguments.all)
    lines = problems + asyncio.run(check_targets.check(specs, arguments.all))
    if arguments.json:
        print_json([_as_data(line) for line in lines])
    else:
        print("\n".join(text for line in lines for text in _as_text(line)))
    return _CODES[check_targets.worst(line.state for line in lines)]


def _as_text(line: Line) -> list[str]:
    """The target in one line, and below it a row a key."""
    state = coloured(*_STATES[line.state])
    lines = [f"{state} {line.target}: {line.found}"]
    if line.keys:
        several = len({check.endpoint for check in line.keys}) > 1
        rows = [_HEADS, *(_cells(check, several) for check in line.keys)]
        lines += [f"       {row}" for row in plain_table(rows, [False] * len(_HEADS)).splitlines()]
    return lines


def _cells(check: KeyCheck, several: bool) -> tuple[str, ...]:
    where = f"{check.endpoint}: " if several else ""
    kind = f"{check.error.kind}: " if check.error is not None else ""
    return (
        check.key or "no key",
        check.place or "–",
        _WORDS[check.state],
        ", ".join(_limits(check.limits)) or "–",
        where + kind + " ".join(check.found.split()),
    )


def _limits(limits: RateHints | None) -> list[str]:
    said = [(unit, getattr(limits, unit, None)) for unit in _UNITS]
    return [f"{left:,.0f} of {most:,.0f} {unit.replace('_', ' ')}" for unit, it in said if it for most, left, _ in [it]]


def _as_data(line: Line) -> dict[str, Any]:
    return {
        "target": line.target,
        "state": line.state,
        "ok": line.state == "works",
        "found": line.found,
        "keys": [_key_data(key) for key in line.keys],
    }


def _key_data(check: KeyCheck) -> dict[str, Any]:
    limits = {unit: getattr(check.limits, unit, None) for unit in _UNITS}
    return {
        "endpoint": check.endpoint,
        "key": check.key,
        "found_in": check.place,
        "state": check.state,
        "works": check.state == "works",
        "found": check.found,
        "error": None if check.error is None else check.error.as_dict(),
        "limits": {
            unit: dict(zip(("limit", "remaining", "reset_s"), said, strict=True))
            for unit, said in limits.items()
            if said is not None
        },
    }
