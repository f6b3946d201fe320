"""Builds a model type small, with fixed random weights, and inputs that it can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.matrix.build import inputs as inputs_of
from engine.matrix.build.heads import class_named, model_class
from engine.matrix.build.overrides import OVERRIDES, Override
from engine.matrix.build.overrides.override import LEVELS, Level
from engine.matrix.build.parts import parts
from engine.matrix.build.shrink import small_config
from engine.matrix.measure.outputs import finite, leaves

SEED = 20240229
BATCH = 2
MOST_PARAMETERS = 150_000_000
"""A model that is larger than this after shrinking is not built."""


class Unavailable(Exception):
    """Raised, with the reason, for a type that can't be built."""


class RecipeFailed(Exception):
    """Raised when every way to shrink and feed the model failed; the message has one line for each."""


@dataclass(frozen=True)
class Built:
    """A model with its inputs, on the CPU in float32, and its outputs."""

    model: Any
    model_type: str
    level: Level
    source: inputs_of.Source
    prepared: inputs_of.Prepared
    outputs: Mapping[str, Any]
    parameters: int
    load_s: float
    override: Override

    def inputs(self, batch: int) -> inputs_of.Inputs:
        """Returns the inputs with another number of rows."""
        return inputs_of.prepare(
            self.model, self.model_type, batch, source=self.source, made=self.override.inputs
        ).inputs


def build(name: str, override: Override | None = None) -> Built:
    """Raises Unavailable or RecipeFailed."""
    override = override if override is not None else OVERRIDES.get(name, Override())
    model_type = override.model_type or name
    make = _maker(model_type, override)
    problems: list[str] = []
    for level in (override.level,) if override.level else LEVELS[:1] if override.build else LEVELS:
        try:
            model, parameters, load_s = make(level)
        except ImportError as error:
            raise Unavailable(_said(error)) from error
        except Exception as error:  # the boundary: any architecture may refuse a small configuration in its own way
            if isinstance(error.__cause__ or error.__context__, ImportError):
                raise Unavailable(_said(error)) from error
            problems.append(f"{level}: can't be built: {_said(error)}")
            continue
        for source in inputs_of.SOURCES:
            try:
                prepared = inputs_of.prepare(model, model_type, BATCH, source=source, made=override.inputs)
                outputs = forward(model, prepared.inputs)
                if not outputs:
                    raise ValueError("it returns no tensor")
                if not finite(outputs):
                    raise ValueError("its outputs are not numbers (NaN)")
            except Exception as error:  # the boundary: likewise for what it reads
                problems.append(f"{level}, inputs by {source}: {_said(error)}")
                continue
            return Built(model, model_type, level, source, prepared, outputs, parameters, load_s, override)
    raise RecipeFailed("; ".join(problems))


def forward(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outputs of one pass, from a fixed seed for models that draw random numbers."""
    import torch

    # Copies, because some models write into their inputs.
    copies = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    torch.manual_seed(SEED)
    with torch.no_grad():
        return leaves(model(**copies))


Maker = Callable[[Level], tuple[Any, int, float]]
"""Level → a model, its parameters and the seconds that building it took."""


def _maker(model_type: str, override: Override) -> Maker:
    """Raises Unavailable if there is nothing to build."""
    from transformers import CONFIG_MAPPING

    if override.unavailable:
        raise Unavailable(override.unavailable)
    if override.build is not None:
        assemble = override.build
        return lambda level: _finished(assemble, override.noise)
    config_class = CONFIG_MAPPING[model_type]
    try:
        chosen = class_named(override.head, config_class) if override.head else model_class(config_class, model_type)
    except ImportError as error:
        raise Unavailable(_said(error)) from error
    if chosen is None:
        raise Unavailable("only a configuration: transformers has no model that is built from it alone")

    def make(level: Level) -> tuple[Any, int, float]:
        import torch

        with torch.device("meta"):
            sketch = chosen(small_config(config_class, level, override.config))
        parameters = sum(weight.numel() for weight in sketch.parameters())
        if parameters > MOST_PARAMETERS:
            raise ValueError(f"still has {parameters / 1e6:.0f} million parameters")
        return _finished(
            lambda: chosen(small_config(config_class, level, override.config)), override.noise, override.part
        )

    return make


def _finished(construct: Callable[[], Any], noise: float, part: str = "") -> tuple[Any, int, float]:
    """Constructs a model and sets its fixed random weights."""
    import torch

    started = time.perf_counter()
    torch.manual_seed(SEED)
    model = construct().float().eval()
    if part:
        model = model.get_submodule(part)
    _without_cache(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point() and weight.numel():
                weight.add_(torch.randn_like(weight) * noise)
    parameters = sum(weight.numel() for weight in model.parameters())
    return model, parameters, time.perf_counter() - started


def _without_cache(model: Any) -> None:
    """Turns the cache off: a single pass needs none, and a converter can't read an empty one."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    for config in configs.values():
        for part in parts(config):
            if getattr(part, "use_cache", None):
                part.use_cache = False


def _said(error: BaseException) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:240]} ({last.filename.rpartition('/')[2]}:{last.lineno})"
