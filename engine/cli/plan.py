"""`engine plan`: what a run would do, without doing it."""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any

from engine.api.build import build, executor_for
from engine.api.explain import explain
from engine.artifacts.resolve import SOURCES
from engine.batches import operations
from engine.cli import plan_local
from engine.cli.command import OVERRIDES, Command, json_flag
from engine.config.compose import Composition, compose, dump_yaml
from engine.core import token_estimate
from engine.core.clock import SystemClock
from engine.core.errors import EngineError, Internal
from engine.core.pipeline import StageLine
from engine.core.prices import Prices
from engine.core.request import Context, Request, Result, Usage
from engine.core.resources import Resources
from engine.core.server_info import ServerInfo
from engine.credentials import keys as credentials
from engine.executors.services import Executor, Services
from engine.runs.report_format import money
from engine.schemas import RunSpec, TargetSpec
from engine.schemas.sources import SourceSpec
from engine.schemas.workload import JsonlWorkloadSpec
from engine.workloads.open import open_source

SAMPLE_ROWS = 10_000
"""Rows that the estimate of tokens reads; the rest is extrapolated."""
EXPLAINED_ROWS = 100
"""Rows of --request that are explained."""
ANSWER_TOKENS = 256
"""Assumed length of an answer whose request sets no limit."""
PRICE_DAYS = 90
"""A price list that was read longer ago than this is worth a warning."""

_EXPLAINED = {"queue": "queue", "rate_limit_wait_s": "rate limit, wait in s", "circuit": "circuit"}
"""What is shown of a target that would be asked, and what it is called."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--request", metavar="FILE", help="explain what each row of a JSONL file would meet")
    parser.add_argument("-m", "--multirun", action="store_true", help="several values a key: plan every cell")
    json_flag(parser)


COMMAND = Command(
    summary="show what a run or a sweep would do, without doing it",
    words=OVERRIDES,
    flags=_flags,
    examples=(
        "plan provider=openai policy=interactive",
        "plan provider=openai --request rows.jsonl",
        "plan -m provider=groq,openai policy.queue.concurrency=8,32",
    ),
    exit_codes=(0, 2, 4, 5),
)


class _Unavailable:
    """Stands in for an executor that can't be made here, so that the chain can still be shown."""

    keys: tuple[str, ...] = ()
    tasks: frozenset[str] = frozenset()

    def __init__(self, target: TargetSpec) -> None:
        self.target = target
        self.server_info = ServerInfo()

    async def start(self) -> None:
        raise Internal("a plan does not run")

    async def check(self) -> str:
        raise Internal("a plan does not run")

    async def aclose(self) -> None:
        return

    async def __call__(self, request: Request, context: Context) -> Result:
        raise Internal("a plan does not run")


@dataclass
class Plan:
    """What would happen, and what stands in the way."""

    chain: list[StageLine] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    workload: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """What would become of the rows of --request."""


def main(arguments: argparse.Namespace) -> int:
    """Exit code 0 when the run could start, else the first problem's."""
    composition = compose(arguments.words, arguments.config_dir)
    plan, code = make(composition, arguments.request)
    if arguments.json:
        data = {
            "chain": [vars(line) for line in plan.chain],
            "targets": plan.targets,
            "workload": plan.workload,
            "config": plan.sources,
            "problems": plan.problems,
            "requests": plan.requests,
            "spec": composition.spec.model_dump(mode="json"),
        }
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        print(_render(plan))
        if arguments.debug:
            print("\nspec\n" + dump_yaml(composition.spec.model_dump(mode="json")))
    return code


def make(composition: Composition, rows: str | None = None) -> tuple[Plan, int]:
    """The plan and its exit code. Reads keys' names, devices and the workload's rows; writes and calls nothing.

    `rows` is a file of requests to explain, in the form of `workload=jsonl`.
    """
    spec = composition.spec
    plan = Plan(sources=[{"path": source.path, "origin": source.origin} for source in composition.sources])
    errors: list[EngineError] = []
    made: dict[int, Executor] = {}

    def make_executor(target: TargetSpec, services: Services) -> Executor:
        executor: Executor
        try:
            executor = executor_for(target, services)
        except EngineError as error:
            errors.append(error)
            executor = _Unavailable(target)
        made[len(made)] = executor
        return executor

    pipeline = build(spec, Services(seed=spec.seed), Resources(seed=spec.seed), make_executor)
    plan.chain = pipeline.describe()
    for chain in pipeline.target_chains:
        prices = pipeline.resources.find(("prices", chain.name))
        plan.targets.append(_target(chain.name, chain.target, chain.executor) | _price(chain.target, prices))
        if chain.target.provider.kind == "local":
            record, problem = plan_local.describe(chain.target, chain.executor, spec.storage)
            plan.targets[-1] |= record
            errors += [problem] if problem is not None else []
    try:
        plan.workload = _workload(spec, pipeline.resources.find(("prices", pipeline.target_chains[0].name)))
    except EngineError as error:
        errors.append(error)
    if rows is not None:
        workload = JsonlWorkloadSpec.model_validate({"kind": "jsonl", "path": rows})
        plan.requests = [
            explain(pipeline, row.request).as_dict() if row.request else {"id": row.id, "notes": [str(row.error)]}
            for row in itertools.islice(open_source(workload, spec.model.tasks), EXPLAINED_ROWS)
        ]
    plan.problems = [str(error) for error in errors]
    return plan, errors[0].exit_code if errors else 0


def _target(name: str, target: TargetSpec, executor: Executor) -> dict[str, Any]:
    record: dict[str, Any] = {"target": name, "kind": target.provider.kind, "model": target.model_id}
    if target.provider.kind == "remote":
        record["url"] = target.provider.base_url
        record["dialect"] = target.provider.dialect
        record["transport"] = target.provider.transport.kind
        record["keys_looked_for"] = credentials.sources(target.provider.credential, target.provider.name)
        record["keys_found"] = list(executor.keys)
        record["key_required"] = target.provider.credential.required
    if target.provider.kind == "local":
        record["hardware"] = target.hardware.kind
        record["sources"] = [_source(source) for source in target.model.sources]
    return record


def _price(target: TargetSpec, prices: Prices) -> dict[str, Any]:
    """What the target's model costs, and where that was read."""
    known = prices.list
    record: dict[str, Any] = {"price": None, "price_source": None, "price_date": None, "price_old": False}
    if prices.own is not None:
        record["price"] = prices.own.model_dump(mode="json", exclude_defaults=True)
        if target.provider.price is not None:
            record["price_source"] = "provider.price"
        elif known is not None:
            days = (SystemClock().wall() - datetime.combine(known.date, time(), UTC).timestamp()) / 86_400
            record |= {"price_source": known.source, "price_date": f"{known.date}", "price_old": days > PRICE_DAYS}
    return record


def _source(source: SourceSpec) -> str:
    if source.kind == "hub":
        return f"hub {source.repo}"
    if source.kind == "package":
        return f"package {source.package} {source.version}"
    return str(SOURCES.get(source.kind)(source))


def _workload(spec: RunSpec, prices: Prices) -> dict[str, Any]:
    """What there is to do, and what it may cost at the first target, whose `prices` these are."""
    source = open_source(spec.workload, spec.model.tasks)
    record: dict[str, Any] = {"source": source.describe(), "requests": None}
    operations.check(spec, source)
    in_jobs = spec.policy.batch.strategy == "provider"
    share = prices.own.batch if prices.own is not None else None
    if source.live:
        if in_jobs:
            record["jobs"] = operations.expected(spec, None, 0, share)
        return record
    cost_of = prices.batch_cost if in_jobs else prices.cost
    size = 0
    rows = tokens_in = tokens_out = invalid = 0
    costs: list[float | None] = []
    for row in itertools.islice(source, SAMPLE_ROWS):
        rows += 1
        if row.request is None:
            invalid += 1
            continue
        given = token_estimate.input_tokens(row.request.body)
        made = token_estimate.output_tokens(row.request.task, row.request.body, ANSWER_TOKENS)
        tokens_in += given
        tokens_out += made
        costs.append(cost_of(row.request.body, Usage(given, made)))
        size += len(row.letter()) + operations.LINE_BYTES
    total = source.count() if rows == SAMPLE_ROWS else rows
    scale = (total or 0) / rows if rows else 0.0
    known = [cost for cost in costs if cost is not None]
    local = all(target.provider.kind != "remote" for target in spec.targets)
    record |= {
        "requests": total,
        "invalid_rows": invalid,
        "input_tokens_estimate": round(tokens_in * scale),
        "output_tokens_at_most": round(tokens_out * scale),
        "cost_usd": sum(known) * scale if len(known) == len(costs) else 0.0 if local else None,
    }
    if in_jobs:
        record["jobs"] = operations.expected(spec, total, round(size * scale), share)
    return record


def _render(plan: Plan) -> str:
    lines = ["chain (outermost first)"]
    width = max(len(line.name) + 2 * line.depth for line in plan.chain) + 2
    for line in plan.chain:
        name = "  " * line.depth + line.name
        lines.append(f"  {name:<{width}}{line.settings or '–'}  · {line.why}")
    lines.append("targets")
    for target in plan.targets:
        lines += _render_target(target)
    lines.append("workload")
    if plan.workload:
        lines += _render_workload(plan.workload)
    for request in plan.requests:
        lines += _render_request(request)
    lines.append("options from")
    lines += [f"  {source['path']} ({source['origin']})" for source in plan.sources]
    if plan.problems:
        lines.append("can't run:")
        lines += [f"  {line}" for problem in plan.problems for line in problem.splitlines()]
    else:
        lines.append("ready: nothing stands in the way of `run`")
    return "\n".join(lines)


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
    lines.append(f"  requests: {workload['requests']}{invalid}")
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
