"""From a run spec to a pipeline: which stages there are, in which order, around which executors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.core.pipeline import Layer, Stage, StageLine, check_order, compose, describe
from engine.core.registry import EXECUTORS
from engine.core.resources import Resources
from engine.executors.services import Executor, Services
from engine.middleware import (
    batch,
    breaker,
    cache,
    concurrency,
    deadline,
    hedge,
    parameters,
    preflight,
    queue,
    rate_limit,
    rescue,
    retry,
    route,
    timeout,
    trace,
)
from engine.middleware.fallback import Fallback
from engine.middleware.layer_context import Branch
from engine.schemas import RunSpec, TargetSpec

PER_REQUEST = (trace, deadline, cache, rescue)
"""Outermost first: the stages that a request passes once."""
PER_TARGET = (
    preflight, retry, hedge, queue, route, parameters, rate_limit, concurrency, breaker, timeout, batch,
)  # fmt: skip
"""Outermost first: the stages before each target. `fallback` stands between the two groups."""


@dataclass
class Route:
    """A target, the executor that reaches it, and the layers before it."""

    name: str
    target: TargetSpec
    executor: Executor
    layers: list[Layer]
    stage: Stage
    endpoints: tuple[str, ...]


@dataclass
class Pipeline:
    """The composed chain of one run spec."""

    spec: RunSpec
    services: Services
    resources: Resources
    outer: list[Layer] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def chain(self, targets: Sequence[str] | None = None) -> Stage:
        """The whole chain, or the one over some targets only, by name and in the order of the run spec."""
        routes = [route for route in self.routes if targets is None or route.name in targets]
        branches = Fallback(
            [route.stage for route in routes],
            [route.name for route in routes],
            [route.target.model.context_length for route in routes],
            self.spec.policy,
            self.resources.clock,
        )
        return compose(self.outer, branches)

    def describe(self) -> list[StageLine]:
        """The chain, one line a stage, outermost first; each target's stages follow one another."""
        lines = describe(self.outer)
        several = len(self.routes) > 1
        order = " → ".join(way.name for way in self.routes)
        lines.append(StageLine("fallback", order, Fallback.why))
        for way in self.routes:
            lines += describe(way.layers, depth=int(several))
            kind = way.target.provider.kind
            lines.append(StageLine("executor", f"{kind}: {way.name}", "it answers", int(several)))
        return lines


def target_names(targets: Sequence[TargetSpec]) -> list[str]:
    """Each target's name; one that comes again, say at another URL, is numbered."""
    names: list[str] = []
    for target in targets:
        again = sum(name.partition("#")[0] == target.name for name in names)
        names.append(f"{target.name}#{again + 1}" if again else target.name)
    return names


def executor_for(target: TargetSpec, services: Services) -> Executor:
    """The executor that the provider's kind asks for. Raises SetupError (keys, devices)."""
    made: Executor = EXECUTORS.get(target.provider.kind)(target, services)
    return made


def build(
    spec: RunSpec,
    services: Services,
    resources: Resources,
    make_executor: Callable[[TargetSpec, Services], Executor] = executor_for,
) -> Pipeline:
    """The pipeline of a run spec. Does no I/O. Raises ConfigError (order, words) and what `make_executor` raises."""
    pipeline = Pipeline(spec, services, resources)
    executors = [make_executor(target, services) for target in spec.targets]
    targets = [executor.target for executor in executors]
    for index, (name, target, executor) in enumerate(zip(target_names(targets), targets, executors, strict=True)):
        branch = Branch(
            name,
            target,
            spec.policy,
            resources,
            keys=executor.keys,
            primary=index == 0,
            facts=executor.facts,
        )
        if index == 0:
            pipeline.outer = _layers(PER_REQUEST, branch)
        layers = _layers(PER_TARGET, branch)
        pipeline.routes.append(Route(name, target, executor, layers, compose(layers, executor), branch.endpoints))
    check_order([layer.cls for layer in (*pipeline.outer, Layer(Fallback), *pipeline.routes[0].layers)])
    return pipeline


def _layers(modules: Sequence[object], branch: Branch) -> list[Layer]:
    made = (module.layer(branch) for module in modules)  # type: ignore[attr-defined]
    return [layer for layer in made if layer is not None]
