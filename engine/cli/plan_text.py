"""The text of a plan."""

from __future__ import annotations

import json
import sys
from typing import Any

from engine.cli import plan_local
from engine.cli.plan_run import PRICE_DAYS, Plan
from engine.cli.terminal import coloured, is_terminal, print_table
from engine.core import token_estimate
from engine.runs.report_format import money

_BODY_CHARS = 2000
_EXPLAINED = {"queue": "queue", "rate_limit_wait_s": "rate limit, wait in s", "circuit": "circuit"}
"""Facts of a target that a request would meet, and their labels."""


def show(plan: Plan) -> None:
    """Prints the plan for a person to read."""
    print(coloured("chain (outermost first)", "bold"))
    stages = [("  " * line.depth + line.name, line.settings or "–", line.why) for line in plan.chain]
    if is_terminal(sys.stdout):
        print_table(("stage", "settings", "why"), stages)
    else:
        width = max(len(name) for name, _, _ in stages) + 2
        print("\n".join(f"  {name:<{width}}{settings}  · {why}" for name, settings, why in stages))
    print("\n".join(_rest(plan)))


def _rest(plan: Plan) -> list[str]:
    """Returns the lines after the chain."""
    lines = []
    lines.append(coloured("targets", "bold"))
    for target in plan.targets:
        lines += _render_target(target)
    lines.append(coloured("workload", "bold"))
    if plan.workload:
        lines += _render_workload(plan.workload)
    for request in plan.requests:
        lines += _render_request(request)
    lines.append(coloured("options from", "bold"))
    lines += [f"  {source['path']} ({source['origin']})" for source in plan.sources]
    if plan.problems:
        lines.append(coloured("can't run:", "red"))
        lines += [f"  {line}" for problem in plan.problems for line in problem.splitlines()]
    else:
        lines.append(f"{coloured('ready:', 'green')} `run` can start")
    return lines


def _render_target(target: dict[str, Any]) -> list[str]:
    lines = [f"  {target['target']}"]
    if target["kind"] == "remote":
        lines.append(f"    {target['url']}  dialect={target['dialect']} transport={target['transport']}")
        looked = "; ".join(target["keys_looked_for"]) or "nowhere"
        found = ", ".join(target["keys_found"]) or ("none" if target["key_required"] else "none, and none is needed")
        lines.append(f"    keys: looked in {looked}; found: {found}")
    if target["kind"] == "local":
        lines.append(
            f"    in this process on {target['hardware']}; files from {', '.join(target['sources']) or 'nowhere'}"
        )
        lines += plan_local.render(target, target["model"])
    if target["kind"] == "simulated":
        lines.append("    simulated: answers are not real")
    if target["price"] is not None:
        said = ", ".join(f"{name}={value:g}" for name, value in target["price"].items() if isinstance(value, float))
        where = target["price_source"] + (f", read {target['price_date']}" if target["price_date"] else "")
        lines.append(f"    price: {said} ({where})")
        if target["price_old"]:
            lines.append(
                f"    these prices are older than {PRICE_DAYS} days: compare them with the page that they are from"
            )
    elif target["kind"] == "remote":
        lines.append(
            "    price: not listed; what the provider says of a cost counts, else it is unknown; "
            "set provider.price.input=… provider.price.output=…, US dollars a million tokens"
        )
    return lines


def _render_request(request: dict[str, Any]) -> list[str]:
    lines = [f"request {request['id']}"]
    if "body" in request:
        body = json.dumps(request["body"], ensure_ascii=False, default=str)
        lines.append(f"  {request['task']}: {body if len(body) <= _BODY_CHARS else body[:_BODY_CHARS] + '…'}")
    if "tokens" in request:
        counts = request["tokens"]
        deadline = f"{request['deadline_s']:g} s" if request["deadline_s"] else "none"
        lines.append(
            f"  tokens: about {counts['input']} in, at most {counts['output_at_most']} out; deadline: {deadline}; "
            f"attempts in all: {request['max_attempts'] or 'no limit'}"
        )
    for place, target in enumerate(request.get("targets", ()), 1):
        lines.append(f"  {place}. {target['target']}: " + (target["refused"] or f"tries: {target['tries']}"))
        if target["refused"] is None:
            if target.get("key"):
                lines.append(f"     key: {target['key']} ({target['key_why']})")
            lines += [f"     {said}: {target[name]}" for name, said in _EXPLAINED.items() if target.get(name)]
    return [*lines, *(f"  {note}" for note in request["notes"])]


def _render_workload(workload: dict[str, Any]) -> list[str]:
    lines = [f"  {workload['source']}"]
    if "jobs" in workload:
        lines.append(f"  jobs: {workload['jobs']}")
    if workload["requests"] is None:
        return [*lines, "  requests: unknown before they are read"]
    invalid = f", {workload['invalid_rows']} of them invalid" if workload["invalid_rows"] else ""
    calls = workload["calls_at_most"]
    tries = "" if calls is None else f"; calls: at most {calls}"
    lines.append(f"  requests: {workload['requests']}{invalid}{tries}")
    lines.append(
        f"  tokens: about {workload['input_tokens_estimate']} in "
        f"({token_estimate.CHARS_PER_TOKEN:g} characters a token), "
        f"at most about {workload['output_tokens_at_most']} out"
    )
    cost = workload["cost_usd"]
    said = f"at most about {money(cost)} at the first target" if cost else "nothing but this machine's time"
    if cost is None:
        said = "unknown, for not every price is known; set provider.price.input=… provider.price.output=…"
    return [*lines, f"  cost: {said}"]
