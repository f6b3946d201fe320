"""The stage protocol, the fold that makes a chain, and the order constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from engine.core.errors import ConfigError
from engine.core.request import Context, Request, Result


class Stage(Protocol):
    """One link of the chain.

    Returns the result or raises an InferenceError. When `context.stream` is set the result carries a ChunkStream, and
    whatever the stage holds is given back in its `on_settle`, not when the call returns.
    """

    async def __call__(self, request: Request, context: Context) -> Result: ...


class Middleware:
    """A stage that has a next one. Subclasses declare their place in the chain, with the reason, as data."""

    name: ClassVar[str]
    why: ClassVar[str]
    """The reason for its position, in one sentence."""
    wraps: ClassVar[dict[str, str]] = {}
    """Stages that must be further in, each with the reason."""
    wrapped_by: ClassVar[dict[str, str]] = {}
    """Stages that must be further out, each with the reason."""

    next: Stage

    async def __call__(self, request: Request, context: Context) -> Result:
        raise NotImplementedError


@dataclass(frozen=True)
class Layer:
    """A middleware before it is built: its class, its arguments except `next`, and its settings as text."""

    cls: type[Middleware]
    arguments: dict[str, Any] = field(default_factory=dict)
    settings: str = ""


def compose(layers: Sequence[Layer], executor: Stage) -> Stage:
    """Folds the layers around the executor; the first layer is outermost. Raises ConfigError for a wrong order."""
    check_order([layer.cls for layer in layers])
    stage = executor
    for layer in reversed(layers):
        stage = layer.cls(next=stage, **layer.arguments)  # type: ignore[call-arg]
    return stage


def check_order(classes: Sequence[type[Middleware]]) -> None:
    """Raises ConfigError, with the reason quoted, when a declared constraint is broken. Absent stages are ignored."""
    place = {cls.name: index for index, cls in enumerate(classes)}
    for cls in classes:
        for other, reason in cls.wraps.items():
            if other in place and place[other] < place[cls.name]:
                raise ConfigError(f"chain: {cls.name} must be outside {other}, because {reason}")
        for other, reason in cls.wrapped_by.items():
            if other in place and place[other] > place[cls.name]:
                raise ConfigError(f"chain: {cls.name} must be inside {other}, because {reason}")


def placed(layers: Sequence[Layer], layer: Layer | None) -> list[Layer]:
    """Returns the layers with one more, at the innermost position that breaks no constraint; None adds nothing.

    Raises ConfigError, with the reason, if there is no such position.
    """
    if layer is None:
        return list(layers)
    problem: ConfigError | None = None
    for position in range(len(layers), -1, -1):
        chain = [*layers[:position], layer, *layers[position:]]
        try:
            check_order([each.cls for each in chain])
        except ConfigError as error:
            problem = problem or error
        else:
            return chain
    assert problem is not None
    raise problem


@dataclass(frozen=True)
class StageLine:
    """One line of a described chain."""

    name: str
    settings: str
    why: str
    depth: int = 0


def describe(layers: Sequence[Layer], depth: int = 0) -> list[StageLine]:
    """The chain as lines, outermost first."""
    return [StageLine(layer.cls.name, layer.settings, layer.cls.why, depth) for layer in layers]
