"""A compiled part of a generating model: the tensors of its inputs by name, its outputs in the part's own form.

Three things make a step quick:

- An input that is returned unchanged, such as the keys and values of an encoder's output, is not an output of the
graph:
  it would be copied twice at every step. It is bound once, in the graph's precision and, for keys, transposed as the
  product reads them.
- The graph keeps the cache itself if it can (`openvino_state`).
- Otherwise the cache is filled in place from the second step on, as in torch, not rebuilt from its parts.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13
from transformers.cache_utils import Cache, DynamicLayer
from transformers.exporters.auto import get_runner_class
from transformers.exporters.configs import ExportFormat
from transformers.exporters.utils import get_leaf_tensors
from transformers.utils import ModelOutput

from engine.runtimes.openvino import state as openvino_state
from engine.runtimes.openvino.state import ORDER, Kept
from engine.runtimes.openvino.target import Target


@dataclass(slots=True)
class _Bound:
    """The values that an input reads."""

    given: torch.Tensor
    fed: torch.Tensor
    """The same numbers in the graph's own form; the graph reads this memory."""


@dataclass(slots=True)
class _Steady:
    """A generation in flight, whose cache is filled in place."""

    given: dict[str, Any]
    """The inputs of the last step: a step with other names, constants or objects belongs to another generation."""
    held: dict[str, torch.Tensor]
    """Tensors of other objects that are inputs of every step, such as an encoder's output."""
    slots: dict[str, tuple[Any, str]]
    """Name of an input in the cache → the layer and its attribute."""
    fills: list[tuple[tuple[Any, str], int]]
    """The slots that a step fills, each with the index of its output."""
    kind: type[ModelOutput]
    fields: list[tuple[str, Any]]
    """Fields of the output: the index of an output of the graph, or the name of the input that it equals."""
    kept: Kept | None = None
    """The cache, if the graph keeps it."""


class Graph:
    """A graph with the inputs and outputs of a module. Changes `program`; `example`: the inputs of its export."""

    def __init__(self, program: Any, metadata: Any, target: Target, example: Mapping[str, Any]) -> None:
        self._target = target
        self._count = len(program.outputs)
        names = [_name(port).removeprefix("output.") for port in program.outputs]
        self._through = _taken_out(program)
        """Index of an output → the input that it equals."""
        self._turned = _bound_as_read(program, set(self._through.values()), target.precision)
        """Inputs whose last two axes are swapped in the graph."""
        kept = _folded(program, target, example, set(self._through.values()))
        self._folded = {place: name for place, name in enumerate(names) if name in kept}
        """Index of an output → its input in a cache that the graph keeps."""
        taken = self._through.keys() | self._folded.keys()
        self._own = [place for place in range(self._count) if place not in taken]
        """The indices of the outputs that the graph has."""
        self._metadata = metadata
        self._steady: _Steady | None = None
        self._kept: weakref.ref[Kept] | None = None
        self.compute(program)

    def compute(self, program: Any) -> None:
        """Computes with this version of the program from now on, such as one with smaller weights."""
        self.let_go()
        compiled = self._target.compile(program)
        self._ports = {_name(port): port for port in compiled.inputs}
        self._request = compiled.create_infer_request()
        self._runner = get_runner_class(ExportFormat.OPENVINO)(compiled, self._metadata)
        self._bound: dict[str, _Bound] = {}
        self._states = openvino_state.states(self._request)

    def goes_on(self, given: Mapping[str, Any]) -> bool:
        """Returns True if this is the next step of the last call's generation."""
        if self._steady is None or (self._steady.kept is not None and not self._steady.kept.here):
            return False
        last = self._steady.given
        return last.keys() == given.keys() and all(_alike(last[name], value) for name, value in given.items())

    def let_go(self) -> None:
        """Ends the last generation: a holder of its cache gets the tensors back."""
        self._steady = None
        kept = self._kept() if self._kept is not None else None
        self._kept = None
        if kept is not None and kept.here:
            kept.give_back()

    def __call__(self, given: dict[str, Any]) -> Any:
        if self._steady is not None and self.goes_on(given):
            return self._step(self._steady, given)
        self.let_go()
        tensors = get_leaf_tensors(given)
        for name, state in self._states.items():
            openvino_state.write(state, tensors[name])
        rows = len(tensors[next(iter(self._states))]) if self._states else 0
        found = self._infer({**given, **tensors, ORDER: np.arange(rows, dtype=np.int32)})
        found |= {place: tensors[name] for place, name in self._through.items()}
        found |= {place: openvino_state.read(self._states[name]) for place, name in self._folded.items()}
        leaves = [found[place] for place in range(self._count)]
        output = self._runner.unflatten(leaves)
        self._steady = _steady(given, output, leaves, self._through)
        if self._steady is not None and self._states:
            self._keep(self._steady, tensors)
        return output

    def _keep(self, steady: _Steady, before: Mapping[str, torch.Tensor]) -> None:
        """Keeps the cache in the graph only, from now on, if the generation continues token by token."""
        slots = {name: steady.slots[name] for name in self._states}
        name, (layer, attribute) = next(iter(slots.items()))
        after = getattr(layer, attribute)
        if after.shape[-2] - before[name].shape[-2] == 1:
            steady.kept = Kept(self._states, slots, *after.shape[::2])
            steady.fills = [(slot, place) for slot, place in steady.fills if place not in self._folded]
            self._kept = weakref.ref(steady.kept)

    def _step(self, steady: _Steady, given: dict[str, Any]) -> Any:
        slots = {name: getattr(*slot) for name, slot in steady.slots.items() if name in self._ports}
        inputs = {**steady.held, **given, **slots}
        if steady.kept is not None:
            inputs[ORDER] = steady.kept.order
        found = self._infer(inputs)
        if steady.kept is not None:
            steady.kept.went_on()
        for (layer, attribute), place in steady.fills:
            setattr(layer, attribute, found[place])
        steady.given = given
        values = {name: inputs[source] if isinstance(source, str) else found[source] for name, source in steady.fields}
        return steady.kind(**values)

    def _infer(self, inputs: Mapping[str, Any]) -> dict[int, torch.Tensor]:
        """Computes the graph's own outputs, by their index among all. Raises RuntimeError."""
        for name, port in self._ports.items():
            self._feed(name, port, inputs[name])
        self._request.infer()
        return {
            place: torch.from_numpy(self._request.get_output_tensor(number).data.copy())
            for number, place in enumerate(self._own)
        }

    def _feed(self, name: str, port: Any, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            self._request.set_tensor(port, openvino.Tensor(np.array(value)))
            return
        tensor = value.detach()
        bound = self._bound.get(name)
        if bound is not None and bound.given.data_ptr() == tensor.data_ptr() and bound.given.shape == tensor.shape:
            return
        fed = tensor.transpose(-1, -2) if name in self._turned else tensor
        if port.get_element_type() == openvino.Type.bf16:
            fed = fed.to(torch.bfloat16, memory_format=torch.contiguous_format).contiguous()
            numbers = fed.view(torch.int16).numpy()
            self._request.set_tensor(port, openvino.Tensor(numbers, openvino.Shape(fed.shape), openvino.Type.bf16))
        else:
            fed = fed.contiguous()
            self._request.set_tensor(port, openvino.Tensor(fed.numpy(), shared_memory=True))
        self._bound[name] = _Bound(tensor, fed)


def _name(port: Any) -> str:
    return str(next(name for name in sorted(port.get_names()) if not name.isdigit())).removeprefix("input.")


def _taken_out(program: Any) -> dict[int, str]:
    """Removes the outputs that equal inputs from the program: index of the output → name of the input."""
    results = list(program.outputs)
    found = {place: name for place, port in enumerate(results) if (name := _unchanged(port)) is not None}
    for place in found:
        program.remove_result(results[place].get_node())
    return found


def _folded(program: Any, target: Target, example: Mapping[str, Any], through: set[str]) -> set[str]:
    """Makes the cache that comes in and goes out a state of the program: the names of its inputs, empty where it can't
    be."""
    caches = {name: value for name, value in example.items() if isinstance(value, Cache)}
    if target.device != "CPU" or len(caches) != 1:
        return set()
    name, cache = next(iter(caches.items()))
    names = {f"{name}.{path}" for path in _slots(cache)} - through
    return names if openvino_state.folded(program, sorted(names)) else set()


def _unchanged(port: Any) -> str | None:
    """Returns the name of the input that an output of a graph equals, if any."""
    node = port.get_node().input_value(0).get_node()
    while node.get_type_name() in ("ConvertLike", "Convert") and (
        node.get_element_type() == node.input_value(0).get_element_type()
    ):
        node = node.input_value(0).get_node()
    return _name(node.output(0)) if node.get_type_name() == "Parameter" else None


def _bound_as_read(program: Any, names: set[str], precision: str) -> set[str]:
    """Changes the inputs of these names to the form in which they are read; returns those that are transposed."""
    turned = set()
    for parameter in program.get_parameters():
        name = _name(parameter.output(0))
        if name not in names or parameter.get_element_type() != openvino.Type.f32:
            continue
        readers = list(parameter.output(0).get_target_inputs())
        shape = parameter.get_partial_shape()
        keys = name.endswith(".keys") and len(shape) == 4
        if keys:
            turned.add(name)
            parameter.set_partial_shape(openvino.PartialShape([shape[0], shape[1], shape[3], shape[2]]))
        if precision == "bf16":
            parameter.set_element_type(openvino.Type.bf16)
        read = opset13.convert(parameter, "f32") if precision == "bf16" else parameter
        if keys:
            read = opset13.transpose(read, np.array([0, 1, 3, 2]))
        if read is not parameter:
            for reader in readers:
                reader.replace_source_output(read.output(0))
    program.validate_nodes_and_infer_types()
    return turned


def _alike(last: Any, value: Any) -> bool:
    """Returns True if a graph that accepts one accepts the other: see `openvino_parts._form`."""
    if isinstance(value, torch.Tensor):
        return (
            isinstance(last, torch.Tensor)
            and value.dtype == last.dtype
            and value.dim() == last.dim()
            and all((one == 1) == (other == 1) for one, other in zip(value.shape[1:], last.shape[1:], strict=True))
        )
    return value is last or (type(value) in (bool, int, float, str) and type(value) is type(last) and value == last)


def _steady(
    given: dict[str, Any], output: Any, leaves: list[torch.Tensor], through: Mapping[int, str]
) -> _Steady | None:
    """Returns the plan of the next steps, and puts the incoming cache in place of the outgoing one; None
    where more than tensors may change from step to step."""
    caches = {name: value for name, value in given.items() if isinstance(value, Cache)}
    if len(caches) != 1 or not isinstance(output, ModelOutput):
        return None
    name, cache = next(iter(caches.items()))
    fresh = next((value for value in output.values() if isinstance(value, Cache)), None)
    slots = _slots(cache)
    if fresh is None or not slots or slots.keys() != (filled := _slots(fresh)).keys():
        return None
    places = {id(leaf): place for place, leaf in enumerate(leaves)}
    fields: list[tuple[str, Any]] = []
    for each, value in output.items():
        if value is fresh:
            fields.append((each, name))
            continue
        place = places.get(id(value))
        if place is None:
            return None
        fields.append((each, through.get(place, place)))
    fills = []
    for path, slot in slots.items():
        value = getattr(*filled[path])
        place = places.get(id(value))
        if place is None:
            return None
        if place not in through:
            fills.append((slot, place))
    for (layer, attribute), place in fills:
        setattr(layer, attribute, leaves[place])
    output[next(each for each, source in fields if source == name)] = cache
    others = {each: value for each, value in given.items() if value is not cache}
    named = {f"{name}.{path}": slot for path, slot in slots.items()}
    return _Steady(given, get_leaf_tensors(others), named, fills, type(output), fields)


def _slots(cache: Any) -> dict[str, tuple[Any, str]]:
    """Returns the places of a cache's tensors by name; empty if a layer keeps more than its keys and values."""
    found = {}
    for path in get_leaf_tensors({"": cache}):
        path = path.removeprefix(".")
        *way, attribute = path.split(".")
        holder = cache
        for step in way:
            holder = holder[int(step)] if step.isdigit() else getattr(holder, step)
        if type(holder) is not DynamicLayer:
            return {}
        found[path] = (holder, attribute)
    return found
