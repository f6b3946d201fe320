"""The messages of KServe's gRPC service, both ways.

Source: KServe's open-inference-protocol, specification/protocol/open_inference_grpc.proto (`GRPCInferenceService`), and
Triton's grpc_service.proto for `RepositoryIndex`. The field numbers are those of MLServer 1.7.1's compiled descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.dialects.codecs.protobuf import field, floats, integers, packed, part, read, signed, text
from engine.dialects.kserve.tensors import DATATYPES, Tensor, from_bytes, to_bytes

_TYPED = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
"""Which field of `InferTensorContents` holds the elements of a datatype; FP16 and BF16 travel as raw bytes only."""


def write_infer(
    model: str,
    version: str | None,
    call_id: str | None,
    parameters: dict[str, Any],
    tensors: list[Tensor],
    outputs: Sequence[str] = (),
    *,
    reply: bool = False,
) -> bytes:
    """A `ModelInferRequest`, or with `reply` a `ModelInferResponse`; the tensors' elements as raw bytes. Raises
    ValueError for an element that its datatype can't hold."""
    message = [field(1, model)]
    if version:
        message.append(field(2, version))
    if call_id:
        message.append(field(3, call_id))
    message += [field(4, field(1, name) + field(2, _parameter(name, value))) for name, value in parameters.items()]
    for tensor in tensors:
        head = field(1, tensor.name) + field(2, tensor.datatype) + packed(3, tensor.shape)
        message.append(field(5, head))
    message += [field(6, field(1, name)) for name in outputs]
    message += [field(6 if reply else 7, to_bytes(tensor)) for tensor in tensors]
    return b"".join(message)


def read_infer(message: bytes, *, reply: bool) -> dict[str, Any]:
    """A `ModelInferRequest` or, with `reply`, a `ModelInferResponse`: `model`, `version`, `id`, `parameters`, `tensors`
    and `outputs`. Raises ValueError."""
    found: dict[str, Any] = {"model": "", "version": "", "id": "", "parameters": {}, "outputs": []}
    entries: list[tuple[str, str, list[int], bytes | None]] = []
    raw: list[bytes] = []
    for number, value in read(message):
        if number in (1, 2, 3):
            found[("model", "version", "id")[number - 1]] = text(value)
        elif number == 4:
            name, parameter = _entry(part(value))
            found["parameters"][name] = parameter
        elif number == 5:
            entries.append(_tensor(part(value)))
        elif number == (6 if reply else 7):
            raw.append(part(value))
        elif number == 6:
            found["outputs"] += [text(name) for at, name in read(part(value)) if at == 1]
    if raw and len(raw) != len(entries):
        raise ValueError(f"{len(entries)} tensors, but the raw bytes of {len(raw)}")
    found["tensors"] = [_filled(entry, raw[index] if raw else None) for index, entry in enumerate(entries)]
    return found


def write_name(name: str, version: str | None = None) -> bytes:
    """A `ModelReadyRequest` or `ModelMetadataRequest`."""
    return field(1, name) + (field(2, version) if version else b"")


def read_name(message: bytes) -> str:
    """The model that such a request names. Raises ValueError."""
    return next((text(value) for number, value in read(message) if number == 1), "")


def write_flag(value: bool) -> bytes:
    """A `ServerLiveResponse`, `ServerReadyResponse` or `ModelReadyResponse`."""
    return field(1, value) if value else b""


def read_flag(message: bytes) -> bool:
    """Returns True if such a response says yes. Raises ValueError."""
    return any(number == 1 and value == 1 for number, value in read(message))


def write_server(name: str, version: str) -> bytes:
    """A `ServerMetadataResponse`."""
    return field(1, name) + field(2, version)


def read_server(message: bytes) -> dict[str, Any]:
    """The same as the REST form has it. Raises ValueError."""
    found: dict[str, Any] = {"name": "", "version": ""}
    found |= {("name", "version")[number - 1]: text(value) for number, value in read(message) if number in (1, 2)}
    return found


def read_metadata(message: bytes) -> dict[str, Any]:
    """A `ModelMetadataResponse` as the REST form has it. Raises ValueError."""
    found: dict[str, Any] = {"name": "", "inputs": [], "outputs": []}
    for number, value in read(message):
        if number == 1:
            found["name"] = text(value)
        elif number in (4, 5):
            name, datatype, shape, _ = _tensor(part(value))
            side = "inputs" if number == 4 else "outputs"
            found[side].append({"name": name, "datatype": datatype, "shape": shape})
    return found


def write_metadata(name: str, metadata: dict[str, Any]) -> bytes:
    """A `ModelMetadataResponse` of what the REST form has."""
    message = [field(1, name), *(field(2, version) for version in metadata["versions"])]
    message.append(field(3, metadata["platform"]))
    for number, side in ((4, "inputs"), (5, "outputs")):
        for each in metadata[side]:
            message.append(
                field(number, field(1, each["name"]) + field(2, each["datatype"]) + packed(3, each["shape"]))
            )
    return b"".join(message)


def write_index(names: list[str]) -> bytes:
    """A `RepositoryIndexResponse`."""
    return b"".join(field(1, field(1, name) + field(3, "READY")) for name in names)


def read_index(message: bytes) -> list[str]:
    """The names in it. Raises ValueError."""
    entries = [part(value) for number, value in read(message) if number == 1]
    return [text(value) for entry in entries for number, value in read(entry) if number == 1]


def _parameter(name: str, value: Any) -> bytes:
    """An `InferParameter`. Raises ValueError."""
    if isinstance(value, bool):
        return field(1, value)
    if isinstance(value, int):
        return field(2, value)
    if isinstance(value, str):
        return field(3, value)
    raise ValueError(f"parameter {name!r}: expected a text, a whole number or a truth value, got {value!r}")


def _entry(message: bytes) -> tuple[str, Any]:
    name: str = ""
    value: Any = None
    for number, found in read(message):
        if number == 1:
            name = text(found)
        elif number == 2:
            for kind, parameter in read(part(found)):
                value = bool(parameter) if kind == 1 else signed(parameter) if kind == 2 else text(parameter)
    return name, value


def _tensor(message: bytes) -> tuple[str, str, list[int], bytes | None]:
    """Name, datatype, shape and the typed contents of a tensor or of its metadata."""
    name = datatype = ""
    shape: list[int] = []
    contents: bytes | None = None
    for number, value in read(message):
        if number == 1:
            name = text(value)
        elif number == 2:
            datatype = text(value)
        elif number == 3:
            shape += [signed(size) for size in integers(value)]
        elif number == 5:
            contents = part(value)
    return name, datatype, shape, contents


def _filled(entry: tuple[str, str, list[int], bytes | None], raw: bytes | None) -> Tensor:
    name, datatype, shape, contents = entry
    if datatype not in DATATYPES:
        raise ValueError(f"tensor {name!r}: {datatype!r} is not a datatype")
    if any(size < 0 for size in shape):
        raise ValueError(f"tensor {name!r}: {shape!r} is not a shape")
    data = _typed(datatype, contents or b"") if raw is None else from_bytes(name, datatype, raw)
    count = 1
    for size in shape:
        count *= size
    if len(data) != count:
        raise ValueError(f"tensor {name!r}: shape {shape} has {count} elements, its data has {len(data)}")
    return Tensor(name, datatype, shape, data)


def _typed(datatype: str, contents: bytes) -> list[Any]:
    """The elements out of an `InferTensorContents`."""
    wanted = _TYPED.get(datatype)
    data: list[Any] = []
    for number, value in read(contents):
        if number != wanted:
            continue
        if number == 8:
            data.append(part(value))
        elif number in (6, 7):
            data += floats(value, "f" if number == 6 else "d")
        elif number == 1:
            data += [each != 0 for each in integers(value)]
        elif number in (2, 3):
            data += [signed(each) for each in integers(value)]
        else:
            data += integers(value)
    return data
