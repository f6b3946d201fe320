"""`engine plan -m`: the cells of a sweep, with what each would do and cost, and the sum."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from engine.cli import plan_run
from engine.cli.terminal import is_terminal, print_json, print_reasons, print_table
from engine.config.compose import choices, compose, expand, varied
from engine.config.diagnostics import mask
from engine.core.errors import ConfigError, EngineError
from engine.runs.report_format import money

ESTIMATES = {
    "requests": "rows",
    "calls_at_most": "calls at most",
    "input_tokens_estimate": "tokens in",
    "output_tokens_at_most": "tokens out at most",
    "cost_usd": "cost at most",
}
"""The estimates of a cell, and the heads of their columns."""
SOME_CELLS = 3
"""The exit code if some cells can't start; a sweep would end with it, too."""


@dataclass(frozen=True)
class Cell:
    """One cell of a planned sweep."""

    choices: dict[str, str]
    state: str
    """`ok`, `invalid` (its configuration) or `blocked` (valid, but it can't start on this machine)."""
    targets: Sequence[str] = ()
    problems: Sequence[str] = ()
    requests: int | None = None
    """Rows; None if they can't be counted, as each estimate."""
    calls_at_most: int | None = None
    input_tokens_estimate: int | None = None
    output_tokens_at_most: int | None = None
    cost_usd: float | None = None


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if every cell can start, 3 if some can, else the first problem's exit code. Raises ConfigError."""
    if arguments.request is not None:
        raise ConfigError(
            f"--request: got {arguments.request} with -m; expected one run. Fix: leave out -m or --request"
        )
    planned = [_plan(words, arguments.config_dir) for words in expand(arguments.words, arguments.config_dir)]
    cells = [cell for cell, _ in planned]
    total = _sum(cells)
    if arguments.json:
        print_json({"cells": [asdict(cell) for cell in cells], "sum": total})
    else:
        _print(cells, total)
    codes = [code for _, code in planned]
    return SOME_CELLS if 0 in codes and any(codes) else codes[0]


def _plan(words: list[str], config_dir: str | None) -> tuple[Cell, int]:
    """Returns a cell and its exit code."""
    chosen = {key: mask(value) for key, value in choices(words).items()}
    try:
        plan, code = plan_run.make(compose(words, config_dir))
    except EngineError as error:
        return Cell(chosen, "invalid", problems=[mask(str(error))]), error.exit_code
    targets = [str(target["target"]) for target in plan.targets]
    estimates = {name: plan.workload.get(name) for name in ESTIMATES}
    state = "ok" if code == 0 else "invalid" if code == ConfigError.exit_code else "blocked"
    return Cell(chosen, state, targets, plan.problems, **estimates), code


def _sum(cells: Sequence[Cell]) -> dict[str, float | None]:
    """Returns the estimates of the cells that can start, added up; None if one of them is not known."""
    total: dict[str, float | None] = {}
    for name in ESTIMATES:
        values = [getattr(cell, name) for cell in cells if cell.state == "ok"]
        total[name] = None if None in values else sum(values)
    return total


def _print(cells: Sequence[Cell], total: dict[str, float | None]) -> None:
    keys = varied([cell.choices for cell in cells])
    reasons = [" ".join("; ".join(cell.problems).split()) for cell in cells]
    rows = [
        [
            number,
            *(cell.choices.get(key, "") for key in keys),
            cell.state,
            *(_shown(name, getattr(cell, name)) for name in ESTIMATES),
            " → ".join(cell.targets) or None,
        ]
        for number, cell in enumerate(cells, start=1)
    ]
    heads = ["cell", *keys, "state", *ESTIMATES.values(), "targets"]
    if is_terminal(sys.stdout):
        print_table(heads, rows)
        print_reasons(reasons)
    else:
        print_table([*heads, "reason"], [[*row, reason] for row, reason in zip(rows, reasons, strict=True)])
    valid = sum(cell.state == "ok" for cell in cells)
    shown = {name: _shown(name, value) or "unknown" for name, value in total.items()}
    print(
        f"{valid} of {len(cells)} cells can start: {shown['requests']} rows, at most {shown['calls_at_most']} calls, "
        f"about {shown['input_tokens_estimate']} tokens in, at most {shown['output_tokens_at_most']} out, "
        f"cost: {'' if total['cost_usd'] is None else 'at most '}{shown['cost_usd']}"
    )


def _shown(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    return money(value) if name == "cost_usd" else f"{value:,}"
