"""A model's output tensors in the canonical form: vectors for `embedding`, named tensors for `tensors`."""

from __future__ import annotations

import base64
from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.kserve.request import VECTORS
from engine.dialects.kserve.tensors import FLOATS, Tensor, rows


def canonical(task: str, model: str, tensors: list[Tensor]) -> dict[str, Any]:
    """The reply's body. Raises ValueError for an unreadable one, InvalidRequest where the request must say more."""
    if task == "tensors":
        if not tensors:
            raise ValueError("the model gave no tensor")
        return {"object": "tensors", "model": model, "outputs": {each.name: entry(each) for each in tensors}}
    vectors = rows(_vectors(tensors))
    if not vectors or not vectors[0]:
        raise ValueError("the vectors are empty")
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "model": model, "data": data}


def entry(tensor: Tensor) -> dict[str, Any]:
    """One tensor: the shape, the datatype, the elements in one flat list, row after row."""
    data = [_element(each) for each in tensor.data] if tensor.datatype == "BYTES" else tensor.data
    return {"shape": tensor.shape, "datatype": tensor.datatype, "data": data}


def _element(element: bytes) -> Any:
    """A text, or `{"b64": …}` for bytes that are not text."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode("ascii")}


def _vectors(tensors: list[Tensor]) -> Tensor:
    """The tensor that holds the vectors. Raises InvalidRequest where no other try can find one."""
    found = [tensor for tensor in tensors if tensor.datatype in FLOATS and len(tensor.shape) == 2]
    if len(found) > 1:
        found = [tensor for name in VECTORS for tensor in found if tensor.name == name][:1] or found
    if len(found) != 1:
        shown = ", ".join(f"{tensor.name} {tensor.datatype} {tensor.shape}" for tensor in tensors) or "none"
        raise InvalidRequest(
            "body.output_tensor: name the output that holds the vectors, floats of the shape [texts, dimensions]; "
            f"the model's outputs: {shown}"
        )
    return found[0]
