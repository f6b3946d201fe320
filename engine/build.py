"""From a run spec to a pipeline: which stages there are, in which order, around which executors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.executors import Executor, Services
from engine.middleware import Branch, batch, breaker, deadline, parameters, queue, retry, route, timeout, trace
from engine.middleware.fallback import Fallback
from engine.pipeline import Layer, Stage, StageLine, check_order, compose, describe
from engine.registry import EXECUTORS
from engine.resources import Resources
from schemas import RunSpec, TargetSpec

PER_REQUEST = (trace, deadline)
"""Outermost first: the stages that a request passes once."""
PER_TARGET = (retry, queue, route, parameters, breaker, timeout, batch)
"""Outermost first: the stages before each target. `fallback` stands between the two groups."""


@dataclass
class Route:
    """A target, the executor that reaches it, and the layers before it."""

    target: TargetSpec
    executor: Executor
    layers: list[Layer]
    stage: Stage


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
        routes = [route for route in self.routes if targets is None or route.target.name in targets]
        if len(routes) == 1:
            return compose(self.outer, routes[0].stage)
        return compose(self.outer, Fallback([route.stage for route in routes], self.spec.policy.fallback))

    def describe(self) -> list[StageLine]:
        """The chain, one line a stage, outermost first; each target's stages follow one another."""
        lines = describe(self.outer)
        several = len(self.routes) > 1
        if several:
            order = " → ".join(route.target.name for route in self.routes)
            lines.append(StageLine("fallback", order, Fallback.why))
        for route in self.routes:
            lines += describe(route.layers, depth=int(several))
            kind = route.target.provider.kind
            lines.append(StageLine("executor", f"{kind}: {route.target.name}", "it answers", int(several)))
        return lines


def build(spec: RunSpec, services: Services, resources: Resources) -> Pipeline:
    """The pipeline of a run spec. Does no I/O. Raises ConfigError (order, words) and SetupError (keys, devices)."""
    pipeline = Pipeline(spec, services, resources)
    targets = spec.targets
    for index, target in enumerate(targets):
        executor: Executor = EXECUTORS.get(target.provider.kind)(target, services)
        branch = Branch(
            target,
            spec.policy,
            resources,
            keys=executor.keys,
            primary=index == 0,
            last=index == len(targets) - 1,
        )
        if index == 0:
            pipeline.outer = _layers(PER_REQUEST, branch)
        layers = _layers(PER_TARGET, branch)
        pipeline.routes.append(Route(target, executor, layers, compose(layers, executor)))
    fallback = [Fallback] if len(targets) > 1 else []
    check_order([layer.cls for layer in pipeline.outer] + fallback + [layer.cls for layer in pipeline.routes[0].layers])
    return pipeline


def _layers(modules: Sequence[object], branch: Branch) -> list[Layer]:
    made = (module.layer(branch) for module in modules)  # type: ignore[attr-defined]
    return [layer for layer in made if layer is not None]
