"""A cache that a graph keeps from step to step, where OpenVINO computes attention over it in place.

As inputs and outputs the keys and values are copied at every step, and attention with fewer keys than queries first
repeats them: for 700 tokens that takes as long as the weights of a model of half a billion parameters. A reader of the
cache gets its tensors back, and the next step starts from them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13
from openvino._offline_transformations import apply_make_stateful_transformation
from transformers.cache_utils import DynamicLayer

from engine.core.errors import Internal

ORDER = "beam_idx"
"""The input with the row of the last step that each row continues from."""
_GROWS = 2
"""The axis of a cache's tensor for its length; [rows, heads, length, width]."""


class KeptLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A layer of a cache whose tensors are in a graph; converted from and to a plain layer in place."""

    kept: Kept

    @property
    def keys(self) -> torch.Tensor:
        self.kept.give_back()
        return self.keys  # the layer is plain now

    @keys.setter
    def keys(self, value: torch.Tensor) -> None:
        self.kept.give_back()
        self.keys = value

    @property
    def values(self) -> torch.Tensor:
        self.kept.give_back()
        return self.values

    @values.setter
    def values(self, value: torch.Tensor) -> None:
        self.kept.give_back()
        self.values = value

    def get_seq_length(self) -> int:
        return self.kept.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.kept.reorder(beam_idx, self)


class Kept:
    """The cache of one generation in the state of a request."""

    def __init__(self, states: Mapping[str, Any], slots: Mapping[str, tuple[Any, str]], rows: int, length: int) -> None:
        """`states` and `slots` (a layer and its attribute) by the same names; `length`: tokens of a row."""
        self.here = True
        """True until the tensors are given back."""
        self._states = states
        self._slots = {name: (weakref.ref(layer), attribute) for name, (layer, attribute) in slots.items()}
        """A weak reference: a cache without a holder need not be given back."""
        self.length = length
        self.order = np.arange(rows, dtype=np.int32)
        """The rows of the last step from which the next one continues."""
        for layer, attribute in slots.values():
            layer.__class__ = KeptLayer
            layer.kept = self
            layer.__dict__[attribute] = None  # keeps its place: code that takes a layer apart relies on the order

    def reorder(self, rows: torch.Tensor, layer: KeptLayer) -> None:
        """Continues the next step from these rows. A cache calls it for all its layers; the first call counts."""
        if layer is next(iter(self._slots.values()))[0]():
            self.order = self.order[rows.numpy()]

    def went_on(self) -> None:
        """Notes that another step was computed."""
        self.length += 1
        self.order = np.arange(len(self.order), dtype=np.int32)

    def give_back(self) -> None:
        """Makes the layers plain again, with their tensors. Raises Internal if a step was left half done."""
        self.here = False
        tensors = {name: read(state) for name, state in self._states.items()}
        lengths = {tensor.shape[_GROWS] for tensor in tensors.values()}
        if lengths != {self.length}:
            raise Internal(f"a step failed and left {sorted(lengths)} tokens in the cache instead of {self.length}")
        rows = torch.from_numpy(self.order).long()
        for name, (found, attribute) in self._slots.items():
            layer = found()
            if layer is not None:
                layer.__class__ = DynamicLayer
                layer.__dict__.pop("kept", None)
                setattr(layer, attribute, tensors[name][rows])


def folded(program: Any, names: Iterable[str]) -> bool:
    """Turns the inputs of these names, and the outputs that follow them, into state of the program.

    Returns False if that is impossible, and leaves the program unchanged.
    """
    pairs = {name: _pair(program, name) for name in names}
    if not pairs or any(pair is None for pair in pairs.values()):
        return False
    ports = {name: pair for name, pair in pairs.items() if pair is not None}
    order = opset13.parameter([-1], np.int32, name=ORDER)
    order.output(0).get_tensor().set_names({ORDER})
    program.add_parameters([order])
    for source, _ in ports.values():
        readers = list(source.get_target_inputs())
        ordered = opset13.gather(source, order, opset13.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(ordered.output(0))
    _share_heads(program)
    program.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(program, {f"input.{name}": f"output.{name}" for name in ports})
    _begin_empty(program, order)
    program.validate_nodes_and_infer_types()
    return True


def states(request: Any) -> dict[str, Any]:
    """Returns the states of a request by the names of their former inputs."""
    return {state.name.partition("output.")[2]: state for state in request.query_state()}


def write(state: Any, tensor: torch.Tensor) -> None:
    """Puts a tensor of a cache into its state."""
    state.state = openvino.Tensor(tensor.detach().contiguous().numpy(), shared_memory=False)


def read(state: Any) -> torch.Tensor:
    """Returns the tensor of a cache that is in the state."""
    tensor = state.state  # the array is a view of its memory
    return torch.from_numpy(tensor.data.copy())


def _pair(program: Any, name: str) -> tuple[Any, Any] | None:
    """Returns the input and the output of this name if a step only appends to the input, in the same shape."""
    source = next((port for port in program.inputs if f"input.{name}" in port.get_names()), None)
    result = next((port for port in program.outputs if f"output.{name}" in port.get_names()), None)
    if source is None or result is None or source.get_element_type() != openvino.Type.f32:
        return None
    made = result.get_node().input_value(0)
    while _is_all(made.get_node()):
        made = made.get_node().input_value(0)
    shape = source.get_partial_shape()
    grows = made.get_node().get_type_name() == "Concat" and len(shape) == 4 and shape[_GROWS].is_dynamic
    return (
        (source, result)
        if grows and _sizes(made.get_partial_shape()) == _sizes(shape) and shape[0].is_dynamic
        else None
    )


def _sizes(shape: Any) -> list[int | None]:
    """Returns a shape; None: any."""
    return [axis.get_length() if axis.is_static else None for axis in shape]


def _is_all(node: Any) -> bool:
    """Returns True if a node's slice of a tensor is the whole tensor."""
    if node.get_type_name() != "Slice":
        return False
    bounds = [node.input_value(place).get_node() for place in (1, 2, 3)]
    if any(bound.get_type_name() != "Constant" for bound in bounds):
        return False
    begin, end, step = (bound.get_data() for bound in bounds)
    return bool((begin == 0).all() and (end >= 2**31 - 1).all() and (step == 1).all())


def _begin_empty(program: Any, order: Any) -> None:
    """Gives every state an initial value without tokens, without which OpenVINO does not compute attention in place."""
    rows = opset13.shape_of(order, output_type="i64")
    none = opset13.subtract(rows, rows)  # not a constant, which would count as the state's own shape
    for op in program.get_ordered_ops():
        if op.get_type_name() != "ReadValue":
            continue
        shape = list(op.get_output_partial_shape(0))
        sizes = [np.array([axis.get_length()], dtype=np.int64) if axis.is_static else none for axis in shape]
        sizes[0] = rows
        zeros = opset13.broadcast(opset13.constant(np.float32(0)), opset13.concat(sizes, axis=0))
        op.set_arguments([zeros])


def _share_heads(program: Any) -> None:
    """Repeats that several queries share the keys and values of a head, in the form that OpenVINO recognises:
    transformers' exporter says it with shapes."""
    for op in program.get_ordered_ops():
        if op.get_type_name() != "ScaledDotProductAttention":
            continue
        for place in (1, 2):
            shaped = op.input_value(place).get_node()
            if shaped.get_type_name() != "Reshape":
                continue
            repeated = shaped.input_value(0).get_node()
            if repeated.get_type_name() != "Broadcast" or repeated.input_value(0).get_partial_shape().rank != 5:
                continue
            one, many = repeated.input_value(0).get_partial_shape()[1], shaped.get_output_partial_shape(0)[1]
            if one.is_static and many.is_static:
                times = np.array([1, 1, many.get_length() // one.get_length(), 1, 1], dtype=np.int64)
                again = opset13.broadcast(repeated.input_value(0), times, broadcast_spec="BIDIRECTIONAL")
                repeated.output(0).replace(again.output(0))
