"""A canonical request to a model behind KServe's wires: the tensors that go in, and those that must come out.

The body of task `tensors` is ours: `inputs` by name, each a nested list or `{"shape", "datatype", "data"}`, `data`
flat, nested, or the base64 of the elements' bytes; `outputs` names the requested ones; `parameters` are the
model's. The datatypes are those of KServe's "Open Inference Protocol (V2)", "Tensor Data Types".
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, field
from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.kserve.tensors import DATATYPES, FLOATS, Tensor, flat, from_bytes

TASKS = frozenset(("embedding", "tensors"))
INPUT = "text"
"""The tensor that takes the texts, where neither `body.input_tensor` nor the model's metadata name one."""
VECTORS = ("sentence_embedding", "embedding", "embeddings", "pooler_output")
"""Which of several outputs holds the vectors, where `body.output_tensor` names none; the first that is there."""
_COMMON = frozenset(("model", "model_version", "metadata", "encoding_format", "stream", "stream_options"))
_EMBEDDING = _COMMON | {"input", "input_tensor", "input_shape", "output_tensor"}
_TENSORS = _COMMON | {"inputs", "outputs", "parameters"}


@dataclass(slots=True)
class Ask:
    """The content of a call, whatever the wire."""

    inputs: list[Tensor]
    outputs: list[str]
    """Names; empty: all that the model has."""
    version: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def ask(task: str, body: dict[str, Any], unsupported: Unsupported) -> Ask:
    """The tensors of a request. Raises InvalidRequest."""
    if task not in TASKS:
        raise InvalidRequest(f"task: {task!r} is not on the KServe wire; one of: {', '.join(sorted(TASKS))}")
    known = _EMBEDDING if task == "embedding" else _TENSORS
    for name, value in body.items():
        if name not in known:
            unsupported.lose_field(name, value)
    version = body.get("model_version")
    if version is not None and (type(version) not in (str, int) or not str(version)):
        raise InvalidRequest(f"body.model_version: expected the version's name or number, got {version!r}")
    asked = _embedding(body) if task == "embedding" else _tensors(body)
    asked.version = str(version) if version is not None else None
    return asked


def _embedding(body: dict[str, Any]) -> Ask:
    given = body.get("input")
    texts = [given] if type(given) is str else given
    if type(texts) is not list or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    found = [_text(text, f"body.input[{index}]") for index, text in enumerate(texts)]
    inputs, outputs = signature(body, "inputs"), signature(body, "outputs")
    name, said = _name(body, "input_tensor"), body.get("input_shape")
    if name is None and inputs:
        name, shape = _text_input(inputs)
        said = shape if said is None else said
    elif said is None:
        said = next((each["shape"] for each in inputs if each["name"] == name), None)
    output = _name(body, "output_tensor") or _vector_output(outputs)
    texts_in = Tensor(name or INPUT, "BYTES", _text_shape(said, len(found)), found)
    return Ask([texts_in], [output] if output else [])


def _tensors(body: dict[str, Any]) -> Ask:
    given = body.get("inputs")
    if type(given) is not dict or not given:
        raise InvalidRequest('body.inputs: expected tensors by name, {"NAME": {"shape": …, "datatype": …, "data": …}}')
    known = {each["name"]: each["datatype"] for each in signature(body, "inputs")}
    inputs = [tensor(value, name, f"body.inputs.{name}", known.get(name)) for name, value in given.items()]
    outputs = body.get("outputs") or []
    if type(outputs) is not list or not all(type(name) is str and name for name in outputs):
        raise InvalidRequest("body.outputs: expected a list with the names of the requested tensors")
    parameters = body.get("parameters") or {}
    if type(parameters) is not dict:
        raise InvalidRequest("body.parameters: expected an object")
    return Ask(inputs, outputs, parameters=parameters)


def tensor(given: Any, name: str, where: str, known: str | None = None) -> Tensor:
    """A tensor out of its canonical form, which is at `where`; `known` is its datatype where the form says none.
    Raises InvalidRequest."""
    value = given if type(given) is dict and "data" in given else {"data": given}
    datatype = value.get("datatype") or known
    data, shape = value["data"], value.get("shape")
    if datatype is not None and datatype not in DATATYPES:
        raise InvalidRequest(
            f"{where}.datatype: {datatype!r} is not a KServe datatype; one of: {', '.join(sorted(DATATYPES))}"
        )
    if type(data) is str and datatype not in (None, "BYTES"):
        elements = _unpacked(name, datatype, data, where)
        found = [len(elements)]
    else:
        try:
            found, elements = flat(data)
        except ValueError as error:
            raise InvalidRequest(f"{where}.data: {error}") from error
    if shape is None:
        shape = found
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"{where}.shape: expected a list of sizes, got {shape!r}")
    if math.prod(shape) != len(elements):
        raise InvalidRequest(f"{where}.shape: {shape} has {math.prod(shape)} elements, the data has {len(elements)}")
    datatype = datatype or _datatype(elements, where)
    return Tensor(name, datatype, shape, _typed(elements, datatype, where))


def _datatype(elements: list[Any], where: str) -> str:
    """Of elements whose datatype neither the request nor the model's metadata say."""
    kinds = set(map(type, elements))
    for datatype, kind in (("BOOL", {bool}), ("INT64", {int}), ("FP32", {int, float}), ("BYTES", {str, bytes, dict})):
        if kinds and kinds <= kind:
            return datatype
    raise InvalidRequest(f"{where}.datatype: say which; the data does not show it")


def _typed(elements: list[Any], datatype: str, where: str) -> list[Any]:
    if datatype == "BYTES":
        return [_bytes(each, f"{where}.data[{index}]") for index, each in enumerate(elements)]
    kinds: tuple[type, ...] = (bool,) if datatype == "BOOL" else (int, float) if datatype in FLOATS else (int,)
    if not {*kinds}.issuperset(map(type, elements)):
        raise InvalidRequest(f"{where}.data: expected elements of {datatype}")
    return elements


def _bytes(element: Any, where: str) -> bytes:
    """An element of BYTES: a text, or `{"b64": …}` for bytes that are not text."""
    if type(element) is bytes:
        return element
    if type(element) is dict and type(element.get("b64")) is str:
        try:
            return base64.b64decode(element["b64"], validate=True)
        except binascii.Error as error:
            raise InvalidRequest(f"{where}.b64: not base64: {error}") from error
    return _text(element, where)


def _unpacked(name: str, datatype: str, data: str, where: str) -> list[Any]:
    try:
        return from_bytes(name, datatype, base64.b64decode(data, validate=True))
    except ValueError as error:  # binascii.Error is one
        raise InvalidRequest(f"{where}.data: expected a list, or base64 of little-endian elements: {error}") from error


def _text(text: Any, where: str) -> bytes:
    if type(text) is not str:
        raise InvalidRequest(f"{where}: the KServe wire carries texts, not tokens; give the text itself")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{where}: not valid Unicode (half of a UTF-16 pair)") from None


def _name(body: dict[str, Any], field: str) -> str | None:
    name = body.get(field)
    if name is not None and type(name) is not str:
        raise InvalidRequest(f"body.{field}: expected the name of a tensor")
    return name


def signature(body: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """The model's tensors of one side, `inputs` or `outputs`, as far as they are known. Raises InvalidRequest."""
    metadata = body.get("metadata")
    entries = metadata.get(side) if type(metadata) is dict else None
    if entries is None:
        return []
    good = type(entries) is list and all(
        type(each) is dict
        and type(each.get("name")) is str
        and type(each.get("datatype")) is str
        and type(each.get("shape")) is list
        for each in entries
    )
    if not good:
        raise InvalidRequest(f"body.metadata.{side}: expected a list of tensors with name, datatype and shape")
    return entries  # type: ignore[no-any-return]


def _text_input(inputs: list[dict[str, Any]]) -> tuple[str, list[Any]]:
    """The input that takes texts, as the metadata has it. Raises InvalidRequest."""
    texts = [each for each in inputs if each["datatype"] == "BYTES"]
    if len(texts) > 1:
        texts = [each for each in texts if each["name"] == INPUT] or texts
    if len(texts) != 1:
        shown = ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in inputs)
        raise InvalidRequest(
            f"body.input_tensor: name the input that takes the texts, BYTES; the model's inputs: {shown}. Next: a "
            "model without one works with task=tensors"
        )
    return texts[0]["name"], texts[0]["shape"]


def _vector_output(outputs: list[dict[str, Any]]) -> str | None:
    """The output that holds the vectors, where only its name can tell; None: the reply's shapes will."""
    found = [each["name"] for each in outputs if each["datatype"] in FLOATS]
    if len(found) > 1:
        return next((name for name in VECTORS if name in found), None)
    return found[0] if found and len(outputs) > 1 else None


def _text_shape(said: Any, count: int) -> list[int]:
    """The shape of the texts' tensor: one dimension, or as many as the model needs, of size 1 behind the first."""
    if said is None:
        return [count]
    if type(said) is not list or not all(size in (-1, 1) for size in said[1:]):
        raise InvalidRequest(f"body.input_shape: expected [-1] or [-1, 1], got {said!r}")
    return [count] + [1] * (len(said) - 1)
