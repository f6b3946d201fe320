"""From a run spec to a pipeline: which stages there are, in which order, around which executors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.core.pipeline import Layer, Stage, StageLine, check_order, compose, describe, placed
from engine.core.registry import EXECUTORS, STAGES
from engine.core.resources import Resources
from engine.executors.services import Executor, Services
from engine.middleware.fallback import Fallback
from engine.middleware.layer_context import LayerContext
from engine.schemas import RunSpec, TargetSpec

PER_REQUEST = ("trace", "deadline", "cache", "rescue")
"""Outermost first: the stages that a request passes once."""
PER_TARGET = (
    "preflight", "retry", "hedge", "queue", "route", "parameters", "rate_limit", "concurrency", "breaker", "timeout",
    "batch",
)  # fmt: skip
"""Outermost first: the stages before each target. `fallback` is between the two groups."""


@dataclass
class TargetChain:
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
    target_chains: list[TargetChain] = field(default_factory=list)

    def chain(self, targets: Sequence[str] | None = None) -> Stage:
        """The whole chain, or the one over some targets only, by name and in the order of the run spec."""
        chains = [chain for chain in self.target_chains if targets is None or chain.name in targets]
        fallback = Fallback(
            [chain.stage for chain in chains],
            [chain.name for chain in chains],
            [chain.target.model.context_length for chain in chains],
            self.spec.policy,
            self.resources.clock,
        )
        return compose(self.outer, fallback)

    def describe(self) -> list[StageLine]:
        """The chain, one line a stage, outermost first; each target's stages follow one another."""
        lines = describe(self.outer)
        several = len(self.target_chains) > 1
        order = " → ".join(chain.name for chain in self.target_chains)
        lines.append(StageLine("fallback", order, Fallback.why))
        for chain in self.target_chains:
            lines += describe(chain.layers, depth=int(several))
            kind = chain.target.provider.kind
            lines.append(StageLine("executor", f"{kind}: {chain.name}", "it answers", int(several)))
        return lines


def target_names(targets: Sequence[TargetSpec]) -> list[str]:
    """Each target's name; one that comes again, say at another URL, is numbered."""
    names: list[str] = []
    for target in targets:
        again = sum(name.partition("#")[0] == target.name for name in names)
        names.append(f"{target.name}#{again + 1}" if again else target.name)
    return names


def executor_for(target: TargetSpec, services: Services) -> Executor:
    """Returns the executor of the provider's kind. Raises SetupError (keys, devices)."""
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
        context = LayerContext(
            name,
            target,
            spec.policy,
            resources,
            keys=executor.keys,
            primary=index == 0,
            server_info=executor.server_info,
        )
        if index == 0:
            pipeline.outer = _layers(PER_REQUEST, context)
        layers = _layers(PER_TARGET, context)
        pipeline.target_chains.append(
            TargetChain(name, target, executor, layers, compose(layers, executor), context.endpoints)
        )
    check_order([layer.cls for layer in (*pipeline.outer, Layer(Fallback), *pipeline.target_chains[0].layers)])
    return pipeline


def _layers(names: Sequence[str], context: LayerContext) -> list[Layer]:
    """Returns the layers of our stages that are on, and of the installed stages that belong among them."""
    made = (STAGES.get(name).layer(context) for name in names)
    layers = [layer for layer in made if layer is not None]
    for name in context.policy.stages:
        stage = STAGES.get(name)
        if getattr(stage, "per_request", False) == (names is PER_REQUEST):
            layers = placed(layers, stage.layer(context))
    return layers
