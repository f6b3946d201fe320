"""Plans one run: its chain, targets, workload and estimates. Calls nothing and writes nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any

from engine.api.build import Pipeline, build, executor_for
from engine.api.explain import explain
from engine.artifacts.resolve import SOURCES
from engine.batches import operations
from engine.cli import plan_local
from engine.config.compose import Composition
from engine.core import token_estimate
from engine.core.clock import SystemClock
from engine.core.errors import ConfigError, EngineError, Internal
from engine.core.pipeline import StageLine
from engine.core.prices import Prices
from engine.core.request import Context, Request, Result
from engine.core.resources import Resources
from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.credentials import keys as credentials
from engine.executors.services import Executor, Services
from engine.schemas import RunSpec, TargetSpec
from engine.schemas.sources import SourceSpec
from engine.schemas.workload import JsonlWorkloadSpec
from engine.workloads.open import Row, Source, open_source

SAMPLE_ROWS = 10_000
"""Rows that the estimate of tokens reads; the rest is extrapolated."""
EXPLAINED_ROWS = 100
"""Rows of --request that are explained."""
ANSWER_TOKENS = 256
"""Assumed length of an answer whose request sets no limit."""
PRICE_DAYS = 90
"""A price list that was read longer ago than this is worth a warning."""


class _Unavailable:
    """Replaces an executor that can't be made here, so that the chain can still be shown."""

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
    """One run before it starts: what it would do, and the problems that prevent it."""

    chain: list[StageLine] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    workload: dict[str, Any] = field(default_factory=dict)
    sources: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The rows of --request, explained."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "chain": [vars(line) for line in self.chain],
            "targets": self.targets,
            "workload": self.workload,
            "config": self.sources,
            "problems": self.problems,
            "requests": self.requests,
        }


def make(composition: Composition, rows: str | None = None, explained: int = 0) -> tuple[Plan, int]:
    """Returns the plan and its exit code. Reads keys' names, devices and the workload's rows; writes and calls nothing.

    At most `explained` requests are explained: those of the file `rows`, in the form of `workload=jsonl`, else those of
    the run's own workload.
    """
    spec = composition.spec
    plan = Plan(sources=[{"path": source.path, "origin": source.origin} for source in composition.sources])
    errors: list[EngineError] = []

    def make_executor(target: TargetSpec, services: Services) -> Executor:
        try:
            return executor_for(target, services)
        except EngineError as error:
            errors.append(error)
            return _Unavailable(target)

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
    if explained:
        plan.requests = [_explained(pipeline, row) for row in itertools.islice(_rows(spec, rows), explained)]
    plan.problems = [str(error) for error in errors]
    return plan, errors[0].exit_code if errors else 0


def _rows(spec: RunSpec, file: str | None) -> Source:
    """Returns the rows of a JSONL file, or of the run itself. Raises ConfigError for rows that are read once."""
    if file is not None:
        workload = JsonlWorkloadSpec.model_validate({"kind": "jsonl", "path": file})
        return open_source(workload, spec.model.tasks, prompt=spec.prompt)
    source = open_source(spec.workload, spec.model.tasks, spec.seed, spec.prompt)
    if source.live:
        raise ConfigError(f"--request: {source.name} can be read once; expected a file. Fix: --request FILE")
    return source


def _explained(pipeline: Pipeline, row: Row) -> dict[str, Any]:
    if row.request is None:
        return {"id": row.id, "notes": [str(row.error)]}
    return {**explain(pipeline, row.request).as_dict(), "task": row.request.task, "body": row.request.body}


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
    """Returns the price of the target's model, with its source."""
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
    """Returns the estimates of a workload. `prices` are those of the first target."""
    source = open_source(spec.workload, spec.model.tasks, prompt=spec.prompt)
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
        "calls_at_most": None if in_jobs else (total or 0) * _calls_a_row(spec),
        "cost_usd": sum(known) * scale if len(known) == len(costs) else 0.0 if local else None,
    }
    if in_jobs:
        record["jobs"] = operations.expected(spec, total, round(size * scale), share)
    return record


def _calls_a_row(spec: RunSpec) -> int:
    """Returns how often one row is sent at most: first tries, retries and hedges at every target."""
    policy = spec.policy
    tries = 1
    if policy.hedge.enabled:
        tries += policy.hedge.max_hedges
    elif policy.retry.enabled:
        throttles = policy.retry.max_throttle_retries
        tries += policy.retry.max_retries + (policy.retry.max_retries if throttles is None else throttles)
    calls = tries * len(spec.targets)
    limit = policy.budget.max_attempts if policy.budget.enabled else None
    return calls if limit is None else min(calls, limit)
