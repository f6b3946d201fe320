"""`engine plan -m`: the cells of a sweep, with what each would do and cost, and the sum."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from engine.cli.plan import make
from engine.cli.terminal import print_table
from engine.config.compose import choices, compose, expand, varied
from engine.core.errors import ConfigError, EngineError
from engine.runs.report_format import money

HEADS = ("state", "rows", "calls at most", "tokens in", "tokens out at most", "cost at most", "reason")


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a planned sweep. Estimates are None if the cell is invalid, or they are unknown."""

    choices: dict[str, str]
    targets: list[str]
    problems: list[str]
    requests: int | None = None
    calls_at_most: int | None = None
    input_tokens_estimate: int | None = None
    output_tokens_at_most: int | None = None
    cost_usd: float | None = None


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if every cell can start, else the first problem's exit code."""
    if arguments.request is not None:
        raise ConfigError("--request: got a file with -m; expected one run. Fix: leave out -m, or --request")
    cells: list[PlannedCell] = []
    code = 0
    for words in expand(arguments.words, arguments.config_dir):
        cell, problem = _planned(words, arguments.config_dir)
        cells.append(cell)
        code = code or problem
    if arguments.json:
        print(json.dumps({"cells": [asdict(cell) for cell in cells], "sum": _sum(cells)}, indent=2, ensure_ascii=False))
    else:
        _print(cells)
    return code


def _planned(words: list[str], config_dir: str | None) -> tuple[PlannedCell, int]:
    chosen = choices(words)
    try:
        composition = compose(words, config_dir)
        plan, code = make(composition)
    except EngineError as error:
        return PlannedCell(chosen, [], [str(error)]), error.exit_code
    work, policy = plan.workload, composition.spec.policy
    rows = work.get("requests")
    tries = 1 + policy.retry.max_retries if policy.retry.enabled else 1
    if policy.budget.enabled and policy.budget.max_attempts is not None:
        tries = min(tries * len(plan.targets), policy.budget.max_attempts)
    cell = PlannedCell(
        chosen,
        [str(target["target"]) for target in plan.targets],
        plan.problems,
        rows,
        None if rows is None else rows * tries,
        work.get("input_tokens_estimate"),
        work.get("output_tokens_at_most"),
        work.get("cost_usd"),
    )
    return cell, code


def _sum(cells: list[PlannedCell]) -> dict[str, float | int | None]:
    """Returns the estimates of all cells that can start, added up; None if one of them is unknown."""
    names = ("requests", "calls_at_most", "input_tokens_estimate", "output_tokens_at_most", "cost_usd")
    counted: dict[str, float | int | None] = {}
    for name in names:
        values = [getattr(cell, name) for cell in cells if not cell.problems]
        counted[name] = None if None in values else sum(values)
    return counted


def _print(cells: list[PlannedCell]) -> None:
    keys = varied([cell.choices for cell in cells])
    rows = [
        [
            *(cell.choices.get(key, "") for key in keys),
            "invalid" if cell.problems else "ok",
            cell.requests,
            cell.calls_at_most,
            cell.input_tokens_estimate,
            cell.output_tokens_at_most,
            "unknown" if cell.cost_usd is None else money(cell.cost_usd),
            " ".join("; ".join(cell.problems).split()) or "",
        ]
        for cell in cells
    ]
    print_table([*keys, *HEADS], rows)
    total, valid = _sum(cells), sum(not cell.problems for cell in cells)
    shown = {name: "unknown" if value is None else f"{value:,}" for name, value in total.items() if name != "cost_usd"}
    cost = total["cost_usd"]
    print(
        f"{valid} of {len(cells)} cells can start: {shown['requests']} rows, at most {shown['calls_at_most']} calls, "
        f"about {shown['input_tokens_estimate']} tokens in, at most {shown['output_tokens_at_most']} out, "
        f"cost: {'unknown' if cost is None else 'at most ' + money(cost)}"
    )
