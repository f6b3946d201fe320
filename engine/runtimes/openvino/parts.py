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
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree
from transformers import PreTrainedModel
from transformers.exporters import OpenVINOConfig, OpenVINOExporter
from transformers.exporters.exporter_dynamo import register_cache_pytrees_for_model

from engine.core.errors import Internal
from engine.runtimes.openvino.compare import distance, leaves, said
from engine.runtimes.openvino.graph import Graph
from engine.runtimes.openvino.target import Target
from engine.runtimes.quiet import quiet
from engine.runtimes.torch.threads import use_here

log = logging.getLogger("engine.runtimes")


class OpenVinoParts:
    """Puts the parts of `model` on OpenVINO, in place."""

    def __init__(self, model: Any, target: Target) -> None:
        self.target = replace(target, properties={**target.properties, "PERFORMANCE_HINT": "LATENCY"})
        self.routes: list[str] = []
        """The conversions, one line each."""
        self.drifts: list[float] = []
        """The cosine with torch's outputs, of each graph that was quantized."""
        self.problems: list[str] = []
        """The failed conversions, with the reasons."""
        self._parts = [_Part(self, each) for each in model.modules() if isinstance(each, PreTrainedModel)]
        for part in self._parts:
            register_cache_pytrees_for_model(part.module)
        self._name = type(model).__name__

    def as_torch(self) -> _AsTorch:
        """Computes every part with torch while it is entered."""
        return _AsTorch(self._parts)

    def check(self) -> None:
        """Raises Internal if not a single part runs on OpenVINO."""
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
        self._name = type(module).__name__
        self._names = tuple(inspect.signature(self.torch).parameters)
        self._graphs: dict[Any, Graph | None] = {}
        """Form of the inputs → its graph; None: it can't be converted."""
        self._last: Graph | None = None
        # `generate` reads the signature at every step, to see the model's inputs.
        self.forward = functools.update_wrapper(functools.partial(self._forward), self.torch)
        self.forward.__signature__ = inspect.signature(self.torch)  # type: ignore[attr-defined]
        module.forward = self.forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        given = {name: value for name, value in given.items() if value is not None}
        if self._last is not None:
            if self._last.goes_on(given):
                return self._last(given)
            self._last.let_go()
        form = _form(given)
        if form is None:
            return self.torch(**given)
        if form not in self._graphs:
            if _short(given):
                # torch.export treats a length of 1 as a constant: the next step shows which axis grows.
                return self._by_torch(given)
            self._graphs[form] = self._converted(given)
            # Without a problem torch computes little between the graphs.
            use_here(None if self._whole.problems else 1)
        self._last = self._graphs[form]
        if self._last is None:
            return self.torch(**given)
        try:
            return self._last(given)
        except RuntimeError as error:
            self._graphs[form] = self._last = None
            self._whole.problems.append(f"{self._name}: {said(error)}")
            use_here(None)
            log.info("%s: back to torch: %s", self._name, said(error))
            return self.torch(**given)

    def _by_torch(self, given: dict[str, Any]) -> Any:
        with self._whole.as_torch():
            return self.torch(**given)

    def _converted(self, given: dict[str, Any]) -> Graph | None:
        with quiet(), warnings.catch_warnings(), self._whole.as_torch():
            warnings.simplefilter("ignore")  # about versions that were not tested together
            with torch.inference_mode(False), torch.no_grad():
                try:
                    return self._checked(_twice(given))
                except Internal:
                    raise
                except Exception as problem:  # the boundary: converters and plug-ins raise types of their own
                    self._whole.problems.append(f"{self._name}: {type(problem).__name__}: {said(problem)}")
                    log.info("%s stays torch's: %s", self._name, self._whole.problems[-1])
                    return None

    def _checked(self, example: dict[str, Any]) -> Graph | None:
        """Returns a graph of the forward pass; None if it is too far from torch.

        Raises the converter's errors, and Internal when quantization changes the answers.
        """
        target = self._whole.target
        wanted = leaves(self.torch(**_copied(example)))
        exported = OpenVINOExporter().export(
            self.module, _copied(example), OpenVINOConfig(dynamic=True, stateful=False)
        )
        graph = Graph(exported.program, exported.components["model"].metadata, target, example)
        error = distance(wanted, _once(graph, example))
        if error > target.tolerance:
            self._whole.problems.append(f"{self._name}: its outputs are {error:.2g} away from torch's")
            return None
        self._whole.routes.append(f"{self._name}, {error:.1e} from torch")
        log.info("%s converted: %.1e from torch", self._name, error)
        if target.quantization != "none":
            graph.compute(target.quantized(exported.program))
            self._whole.drifts.append(target.check_drift(self._name, wanted, _once(graph, example)))
        return graph


def _once(graph: Graph, example: dict[str, Any]) -> list[torch.Tensor]:
    """Returns the tensors of the output, for a step without a successor."""
    output = graph(_copied(example))
    graph.let_go()
    return leaves(output)


def _form(given: dict[str, Any]) -> Any:
    """Returns the form of inputs that one graph accepts: the same names, constants and structure; a length of 1 is a
    form of its own, except in what is nested, such as a cache. None: nothing to compute with."""
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
    """Returns True if a nested tensor, such as a cache's, has a length of 1."""
    nested = {name: value for name, value in given.items() if not isinstance(value, torch.Tensor)}
    tensors = [leaf for leaf in pytree.tree_leaves(nested) if isinstance(leaf, torch.Tensor)]
    return any(tensor.dim() > 2 and tensor.shape[-2] == 1 for tensor in tensors)


def _twice(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the inputs with two rows in place of one: torch.export treats a size of 1 as a constant."""
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    one_row = all(tensor.dim() > 0 and tensor.shape[0] == 1 for tensor in tensors if tensor.dim() > 1)

    def doubled(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return torch.cat([leaf, leaf]) if one_row and leaf.dim() > 1 else leaf.clone()

    made: dict[str, Any] = pytree.tree_map(doubled, given)
    return made


def _copied(given: dict[str, Any]) -> dict[str, Any]:
    """Copies all tensors for a forward pass, which writes into its caches."""
    made: dict[str, Any] = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, given)
    return made
