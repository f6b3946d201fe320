"""A generating model on OpenVINO: `generate` stays transformers', and the forward passes that it calls are graphs.

Each module of the model that is one of transformers' own is a part. The outermost part that a step calls is converted
when it is first called, with the caches that come in and go out, and is checked against torch. A part that can't be
converted stays torch's, and the parts within it are tried. Source of the conversion of caches: transformers.exporters.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
import torch
from torch.utils import _pytree as pytree
from transformers import PreTrainedModel
from transformers.exporters import OpenVINOConfig, OpenVINOExporter
from transformers.exporters.auto import get_runner_class
from transformers.exporters.configs import ExportFormat
from transformers.exporters.exporter_dynamo import register_cache_pytrees_for_model
from transformers.exporters.utils import get_leaf_tensors

from engine.errors import Internal
from engine.runtimes.openvino_compare import TOLERANCE, distance, leaves, said
from engine.runtimes.torch_loading import quiet

Run = Callable[[dict[str, Any]], Any]

log = logging.getLogger("engine.runtimes")


class OpenVinoParts:
    """Puts the parts of `model` on OpenVINO, in place."""

    def __init__(self, model: Any, device: str, properties: Mapping[str, str], precision: str) -> None:
        """`device` is OpenVINO's name of it; `precision` is f32, bf16 or f16."""
        self._device = device
        self._properties = {**properties, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self.tolerance = TOLERANCE[precision]
        self.routes: list[str] = []
        """What was converted, one line each."""
        self.problems: list[str] = []
        """What could not be, and why."""
        self._parts = [_Part(self, each) for each in model.modules() if isinstance(each, PreTrainedModel)]
        for part in self._parts:
            register_cache_pytrees_for_model(part.module)
        self._name = type(model).__name__

    def compile(self, graph: Any) -> Any:
        return openvino.Core().compile_model(graph, self._device, self._properties)

    def as_torch(self) -> _AsTorch:
        """While this is entered, every part is computed by torch."""
        return _AsTorch(self._parts)

    def check(self) -> None:
        """Raises Internal when not a single part runs on OpenVINO."""
        if not self.routes and self.problems:
            raise Internal(
                f"OpenVINO can't run {self._name} ({'; '.join(self.problems[:3])}). "
                f"Next: hardware=cpu runs it with torch"
            )


class _AsTorch:
    def __init__(self, parts: list[_Part]) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        for part in self._parts:
            part.module.forward = part.torch

    def __exit__(self, *error: object) -> None:
        for part in self._parts:
            part.module.forward = part.forward


class _Part:
    """One module, and the graphs of its forward pass: one for each form of its inputs."""

    def __init__(self, whole: OpenVinoParts, module: Any) -> None:
        self._whole = whole
        self.module = module
        self.torch = module.forward
        self._names = tuple(inspect.signature(self.torch).parameters)
        self._graphs: dict[Any, Run | None] = {}
        """None: it can't be converted."""
        # `generate` looks at the signature to see what a model takes.
        self.forward = functools.update_wrapper(functools.partial(self._forward), self.torch)
        module.forward = self.forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        given = {name: value for name, value in given.items() if value is not None}
        form = _form(given)
        if form is None:
            return self.torch(**given)
        if form not in self._graphs:
            if _short(given):
                # torch.export takes a length of 1 for a constant: the next step shows what grows.
                return self._by_torch(given)
            self._graphs[form] = self._converted(given)
        run = self._graphs[form]
        if run is None:
            return self.torch(**given)
        try:
            return run(given)
        except RuntimeError as error:
            self._graphs[form] = None
            self._whole.problems.append(f"{type(self.module).__name__}: {said(error)}")
            log.info("%s: back to torch: %s", type(self.module).__name__, said(error))
            return self.torch(**given)

    def _by_torch(self, given: dict[str, Any]) -> Any:
        with self._whole.as_torch():
            return self.torch(**given)

    def _converted(self, given: dict[str, Any]) -> Run | None:
        name = type(self.module).__name__
        with quiet(), warnings.catch_warnings(), self._whole.as_torch():
            warnings.simplefilter("ignore")  # about versions that were not tested together
            with torch.inference_mode(False), torch.no_grad():
                try:
                    run, error = self._checked(_twice(given))
                except Exception as problem:  # the boundary: converters and plug-ins fail in ways of their own
                    self._whole.problems.append(f"{name}: {type(problem).__name__}: {said(problem)}")
                    log.info("%s stays torch's: %s", name, self._whole.problems[-1])
                    return None
        if error > self._whole.tolerance:
            self._whole.problems.append(f"{name}: its outputs are {error:.2g} away from torch's")
            return None
        self._whole.routes.append(f"{name}, {error:.1e} from torch")
        log.info("%s converted: %.1e from torch", name, error)
        return run

    def _checked(self, example: dict[str, Any]) -> tuple[Run, float]:
        """A graph of the forward pass and how far it is from torch. Raises whatever the converter raises."""
        wanted = leaves(self.torch(**_copied(example)))
        exported = OpenVINOExporter().export(
            self.module, _copied(example), OpenVINOConfig(dynamic=True, stateful=False)
        )
        run = _Graph(exported.program, exported.components["model"].metadata, self._whole.compile)
        return run, distance(wanted, leaves(run(_copied(example))))


class _Graph:
    """A compiled part: the tensors of its inputs by name, its outputs in the part's own form.

    What comes out as it went in, such as the keys and values of an encoder's output, is no output of the graph: it
    would be copied at every step, twice. Such an input is bound once, and kept for as long as it stays the same.
    """

    def __init__(self, program: Any, metadata: Any, compile_: Callable[[Any], Any]) -> None:
        self._through: dict[int, str] = {}
        """By the place of an output: the input that it is."""
        results = list(program.outputs)
        for place, port in enumerate(results):
            name = _unchanged(port)
            if name is not None:
                self._through[place] = name
        for place in self._through:
            program.remove_result(results[place].get_node())
        self._count = len(results)
        compiled = compile_(program)
        self._ports = {
            next(name for name in sorted(port.get_names()) if not name.isdigit()): port for port in compiled.inputs
        }
        self._outputs = len(compiled.outputs)
        self._request = compiled.create_infer_request()
        self._runner = get_runner_class(ExportFormat.OPENVINO)(compiled, metadata)
        self._bound: dict[str, torch.Tensor] = {}

    def __call__(self, given: dict[str, Any]) -> Any:
        tensors = get_leaf_tensors(given)
        for port_name, port in self._ports.items():
            name = port_name.removeprefix("input.")
            if name not in tensors:
                self._request.set_tensor(port, openvino.Tensor(np.array(given[name])))
                continue
            tensor = tensors[name].detach()
            bound = self._bound.get(name)
            if bound is not None and bound.data_ptr() == tensor.data_ptr() and bound.shape == tensor.shape:
                continue
            tensor = tensor.contiguous()
            self._request.set_tensor(port, openvino.Tensor(tensor.numpy(), shared_memory=True))
            self._bound[name] = tensor  # the graph reads its memory
        self._request.infer()
        fresh = iter(
            torch.from_numpy(self._request.get_output_tensor(place).data.copy()) for place in range(self._outputs)
        )
        return self._runner.unflatten(
            [tensors[self._through[at]] if at in self._through else next(fresh) for at in range(self._count)]
        )


def _unchanged(port: Any) -> str | None:
    """The name of the input that an output of a graph is, if it is one."""
    node = port.get_node().input_value(0).get_node()
    while node.get_type_name() in ("ConvertLike", "Convert") and (
        node.get_element_type() == node.input_value(0).get_element_type()
    ):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Parameter":
        return None
    return str(next(iter(node.output(0).get_names()))).removeprefix("input.")


def _form(given: dict[str, Any]) -> Any:
    """What one graph can take: the same names, constants and structure; a length of 1 is a form of its own, except
    in what is nested, such as a cache. None: nothing to compute with."""
    found, structure = pytree.tree_flatten(given)
    if not any(isinstance(leaf, torch.Tensor) for leaf in found):
        return None
    constants = tuple(repr(leaf) for leaf in found if not isinstance(leaf, torch.Tensor))
    ones = tuple(
        (name, value.dtype, tuple(size == 1 for size in value.shape[1:]))
        for name, value in given.items()
        if isinstance(value, torch.Tensor)
    )
    return repr(structure), constants, ones


def _short(given: dict[str, Any]) -> bool:
    """Whether a nested tensor, such as a cache's, has a length of 1."""
    nested = {name: value for name, value in given.items() if not isinstance(value, torch.Tensor)}
    tensors = [leaf for leaf in pytree.tree_leaves(nested) if isinstance(leaf, torch.Tensor)]
    return any(tensor.dim() > 2 and tensor.shape[-2] == 1 for tensor in tensors)


def _twice(given: dict[str, Any]) -> dict[str, Any]:
    """The inputs with two rows where there is one: torch.export takes a size of 1 for a constant."""
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    one_row = all(tensor.dim() > 0 and tensor.shape[0] == 1 for tensor in tensors if tensor.dim() > 1)

    def doubled(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return torch.cat([leaf, leaf]) if one_row and leaf.dim() > 1 else leaf.clone()

    made: dict[str, Any] = pytree.tree_map(doubled, given)
    return made


def _copied(given: dict[str, Any]) -> dict[str, Any]:
    """A forward pass writes into the caches that it is given."""
    made: dict[str, Any] = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, given)
    return made
