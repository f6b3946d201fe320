"""A transformers model whose forward pass is OpenVINO's: converted when it is first called, and checked against torch.

Three routes: transformers' exporter for OpenVINO (over torch.export) with open shapes, OpenVINO's own conversion of a
trace, and the exporter with the shapes of the call. The first whose outputs agree with torch's is taken.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import openvino
import torch
from torch.utils import _pytree as pytree

from engine.core.errors import Internal
from engine.runtimes.openvino.compare import distance, leaves, said
from engine.runtimes.openvino.patches import GEOMETRY, rewritten
from engine.runtimes.openvino.target import Target
from engine.runtimes.quiet import quiet

Tensors = dict[str, torch.Tensor]
Run = Callable[[Tensors], Any]
"""Computes the model's output, in the model's own form. Raises RuntimeError for shapes that the graph can't take."""

log = logging.getLogger("engine.runtimes")


class OpenVinoModule(torch.nn.Module):  # type: ignore[misc]
    """Replaces `model` for callers. Other names or constants of inputs need another conversion."""

    def __init__(self, model: Any, target: Target) -> None:
        super().__init__()
        # Not as an attribute of its own: torch would take it for a part of this module.
        self.__dict__["_source"] = model
        self._target = target
        self._open: dict[tuple[Any, ...], Run] = {}
        """Open graphs, by the names of the inputs, the constants, and the geometry of images."""
        self._fixed: dict[tuple[Any, ...], Run] = {}
        """Fixed graphs, by the shapes as well, for shapes that an open graph can't take."""
        self.routes: list[str] = []
        """The conversions, one line each."""
        self.drifts: list[float] = []
        """The cosine with torch's outputs, of each graph that was quantized."""
        # Pipelines read the signature to see the model's inputs.
        self.forward = functools.update_wrapper(functools.partial(self._forward), model.forward)
        self.eval()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_source"], name)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        source = self.__dict__["_source"]
        if args:
            kwargs = {**dict(zip(inspect.signature(source.forward).parameters, args, strict=False)), **kwargs}
        given = {name: value for name, value in kwargs.items() if value is not None}
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        constants = {name: value for name, value in given.items() if name not in tensors}
        geometry = [(name, tensors[name].tolist()) for name in GEOMETRY if name in tensors]
        key = (tuple(sorted(tensors)), repr(sorted(constants.items())), repr(geometry))
        shapes = (*key, tuple(tuple(tensors[name].shape) for name in sorted(tensors)))
        if shapes in self._fixed:
            return self._fixed[shapes](tensors)
        if key not in self._open:
            self._open[key] = self._converted(tensors, constants, _OPEN)
        try:
            return self._open[key](tensors)
        except RuntimeError as error:
            log.info("%s: the graph can't take %s: %s", type(source).__name__, shapes[-1], said(error))
            self._fixed[shapes] = self._converted(tensors, constants, _FIXED)
            return self._fixed[shapes](tensors)

    def _converted(self, tensors: Tensors, constants: dict[str, Any], routes: Mapping[str, Any]) -> Run:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions that were not tested together
            return self._first_right(tensors, constants, routes)

    def _first_right(self, tensors: Tensors, constants: dict[str, Any], routes: Mapping[str, Any]) -> Run:
        """Returns the first route whose outputs agree with torch's. Raises Internal."""
        model, problems = self.__dict__["_source"], []
        with torch.inference_mode(False), torch.no_grad():
            given = {name: value.clone() for name, value in tensors.items()}
            wanted = leaves(model(**given, **copy.deepcopy(constants)))
            for route, convert in routes.items():
                try:
                    made: _Converted = convert(model, _example(given) if routes is _OPEN else given, constants)
                    run = made.on(self._target)
                    error = distance(wanted, leaves(run(given)))
                except Exception as problem:  # the boundary: converters and plug-ins raise types of their own
                    problems.append(f"{route}: {type(problem).__name__}: {said(problem)}")
                    continue
                if error <= self._target.tolerance:
                    self.routes.append(f"{route}, {error:.1e} from torch")
                    log.info("%s converted: %s", type(model).__name__, self.routes[-1])
                    return run if self._target.quantization == "none" else self._quantized(made, given, wanted)
                problems.append(f"{route}: its outputs are {error:.2g} away from torch's")
        raise Internal(
            f"OpenVINO can't run {type(model).__name__} ({'; '.join(problems)}). Next: hardware=cpu runs it with torch"
        )

    def _quantized(self, made: _Converted, given: Tensors, wanted: list[torch.Tensor]) -> Run:
        """Returns the graph with smaller weights. Raises Internal if that changes the answers."""
        smaller = replace(made, graph=self._target.quantized(made.graph, [made.feed(given)]))
        run = smaller.on(self._target)
        name = type(self.__dict__["_source"]).__name__
        self.drifts.append(self._target.check_drift(name, wanted, leaves(run(given))))
        return run


@dataclass(frozen=True, slots=True)
class _Converted:
    """A graph of a forward pass."""

    graph: Any
    output: Callable[[Any, Tensors], Any]
    """Returns the outputs of the compiled graph, in the model's own form."""
    feed: Callable[[Tensors], Any]
    """Returns the graph's own inputs, as OpenVINO takes them."""

    def on(self, target: Target) -> Run:
        """Compiles the graph. Raises RuntimeError."""
        return functools.partial(self.output, target.compile(self.graph))


def _by_export(dynamic: bool, model: Any, inputs: Tensors, constants: dict[str, Any]) -> _Converted:
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter
    from transformers.exporters.auto import get_runner_class
    from transformers.exporters.configs import ExportFormat

    shapes = {name: _open_axes(inputs.get(name)) for name in (*inputs, *constants)} if dynamic else None
    config = OpenVINOConfig(dynamic=dynamic, dynamic_shapes=shapes, stateful=False)
    exported = OpenVINOExporter().export(model, {**copy.deepcopy(inputs), **constants}, config)
    metadata = exported.components["model"].metadata
    runner = get_runner_class(ExportFormat.OPENVINO)

    def output(compiled: Any, tensors: Tensors) -> Any:
        # A request that failed once gives wrong answers from then on, so each pass has its own.
        return runner(compiled, metadata)(**tensors)

    def feed(tensors: Tensors) -> dict[str, Any]:
        named = {name: value.contiguous().numpy() for name, value in tensors.items()}
        return {port.any_name: named[port.any_name.removeprefix("input.")] for port in exported.program.inputs}

    return _Converted(exported.program, output, feed)


def _by_trace(model: Any, inputs: Tensors, constants: dict[str, Any]) -> _Converted:
    names = sorted(inputs)
    example, form = pytree.tree_flatten(model(**inputs, **constants))
    kept = [index for index, leaf in enumerate(example) if isinstance(leaf, torch.Tensor)]

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = pytree.tree_leaves(self.model(**dict(zip(names, values, strict=True)), **constants))
            return tuple(found[index] for index in kept)

    with rewritten(model):
        graph = openvino.convert_model(Flat().eval(), example_input=tuple(inputs[name] for name in names))

    def feed(tensors: Tensors) -> list[Any]:
        return [tensors[name].contiguous().numpy() for name in names]

    def output(compiled: Any, tensors: Tensors) -> Any:
        found = compiled.create_infer_request().infer(feed(tensors))
        values = list(example)
        for index, port in zip(kept, compiled.outputs, strict=True):
            values[index] = torch.from_numpy(found[port].copy())
        return pytree.tree_unflatten(values, form)

    return _Converted(graph, output, feed)


_OPEN = {"exporter": functools.partial(_by_export, True), "trace": _by_trace}
_FIXED = {"exporter, fixed shapes": functools.partial(_by_export, False), "trace": _by_trace}


def _open_axes(tensor: torch.Tensor | None) -> dict[int, Any] | None:
    """Returns the axes that may differ between calls: all but the channels of an image; torch.export closes those that
    the model binds."""
    if tensor is None:
        return None
    return {axis: torch.export.Dim.AUTO for axis in range(tensor.dim()) if not (tensor.dim() == 4 and axis == 1)}


def _example(tensors: Tensors) -> Tensors:
    """Returns the inputs with two rows: torch.export treats a size of 1 as a constant."""
    if any(value.dim() == 0 or value.shape[0] != 1 for value in tensors.values()):
        return tensors
    return {name: torch.cat([value, value]) for name, value in tensors.items()}
