"""One deviation from the general recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.matrix.build.shapes import Make


@dataclass(frozen=True)
class Override:
    """The needs of one model type in addition to the general recipe, with the reason."""

    reason: str = ""
    unavailable: str = ""
    """The reason that there is nothing to run."""
    model_type: str = ""
    """The type to build, for a row that is a shape and not a type."""
    checkpoint: str = ""
    """The checkpoint with that shape."""
    head: str | None = None
    """The class to build, if the most complete one is wrong."""
    build: Callable[[], Any] | None = None
    """Makes the model, for a row that no configuration builds. Raises ImportError for a missing package."""
    part: str = ""
    """The submodule to run, for a model without a forward pass of its own, or one that needs a session."""
    level: Level | None = None
    """The only level to try."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings by their dotted path, set after shrinking."""
    noise: float = 0.02
    """Added to every weight, so that biases and scales that begin as 0 or 1 affect the comparison."""
    not_routes: tuple[str, ...] = ()
    """Routes to OpenVINO that are skipped, because they end the process or never end."""
    inputs: Mapping[str, Make | None] = field(default_factory=dict)
    """Makers of inputs; None leaves an input out."""


Level = Literal["small", "shallow"]


LEVELS: tuple[Level, ...] = ("small", "shallow")
