"""Tensors of the KServe v2 wire, in JSON and as bytes.

Sources: KServe, "Open Inference Protocol (V2)", "Tensor Data"; the binary tensor data extension (KServe and Triton,
"Binary Tensor Data Extension"): the JSON object first, then the tensors' bytes in the order of the JSON; little-endian,
row major, without padding; an element of BYTES is its length as 4 bytes, then itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

HEADER = "inference-header-content-length"
"""Bytes of the JSON object, in a message that has tensors as bytes behind it."""
_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
DATATYPES = frozenset((*_FORMATS, "BF16", "BYTES"))
FLOATS = frozenset(("FP16", "BF16", "FP32", "FP64"))
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Tensor:
    """A tensor with its elements in one flat list, row after row; those of BYTES are bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] = field(repr=False)


def split(headers: Mapping[str, str], content: bytes) -> tuple[Any, bytes]:
    """The JSON of a message, and the bytes behind it. Raises ValueError."""
    said = headers.get(HEADER)
    if said is None:
        return _decode(content), b""
    if not (said.isascii() and said.isdigit()) or int(said) > len(content):
        raise ValueError(f"{HEADER} {said!r} does not fit a body of {len(content)} bytes")
    return _decode(content[: int(said)]), content[int(said) :]


def read(entries: Any, tail: bytes) -> list[Tensor]:
    """The tensors of a request's `inputs` or a reply's `outputs`; `tail` are the bytes behind the JSON.
    Raises ValueError with the tensor's name."""
    if type(entries) is not list:
        raise ValueError("the tensors are not a list")
    tensors, start = [], 0
    for entry in entries:
        name, datatype, shape = _head(entry)
        count = math.prod(shape)
        parameters = entry.get("parameters")
        size = parameters.get("binary_data_size") if type(parameters) is dict else None
        if size is None:
            data = _from_json(name, datatype, entry.get("data"))
        else:
            if type(size) is not int or not 0 <= size <= len(tail) - start:
                raise ValueError(f"tensor {name!r}: binary_data_size {size!r} does not fit the bytes behind the JSON")
            data = from_bytes(name, datatype, tail[start : start + size])
            start += size
        if len(data) != count:
            raise ValueError(f"tensor {name!r}: shape {shape} has {count} elements, its data has {len(data)}")
        tensors.append(Tensor(name, datatype, shape, data))
    if start != len(tail):
        raise ValueError(f"{len(tail) - start} bytes behind the JSON belong to no tensor")
    return tensors


def write(message: dict[str, Any], key: str, tensors: list[Tensor], *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """A message with `tensors` as its `key`, and the headers that it needs."""
    entries, pieces = [], []
    for tensor in tensors:
        entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if binary:
            piece = to_bytes(tensor)
            entry["parameters"] = {"binary_data_size": len(piece)}
            pieces.append(piece)
        else:
            # JSON has no bytes: an element is the text that it is.
            entry["data"] = [each.decode() for each in tensor.data] if tensor.datatype == "BYTES" else tensor.data
        entries.append(entry)
    head = _encode({**message, key: entries})
    if not binary:
        return head, {}
    return head + b"".join(pieces), {HEADER: str(len(head)), "content-type": "application/octet-stream"}


def rows(tensor: Tensor) -> list[list[Any]]:
    """The rows of a tensor with two dimensions."""
    count, width = tensor.shape
    return [tensor.data[width * row : width * (row + 1)] for row in range(count)]


def flat(data: Any) -> tuple[list[int], list[Any]]:
    """The shape of nested lists, and their elements in one; a bare element is a tensor without dimensions. Raises
    ValueError for rows of different lengths."""
    shape: list[int] = []
    elements: list[Any] = [data]
    while elements and type(elements[0]) is list:
        sizes = {len(row) if type(row) is list else -1 for row in elements}
        if len(sizes) != 1:
            raise ValueError("its rows differ in length")
        shape += sizes
        elements = [each for row in elements for each in row]
    if any(type(each) is list for each in elements):
        raise ValueError("its rows differ in length")
    return shape, elements


def speaks_json(tensors: list[Tensor]) -> bool:
    """Returns True if JSON can carry them: it has neither bytes nor half a float ("Tensor Data", Triton's FP16 and
    BF16)."""
    return not any(
        tensor.datatype in ("FP16", "BF16") or (tensor.datatype == "BYTES" and not all(map(_is_text, tensor.data)))
        for tensor in tensors
    )


def _is_text(element: bytes) -> bool:
    try:
        element.decode()
    except UnicodeDecodeError:
        return False
    return True


def _head(entry: Any) -> tuple[str, str, list[int]]:
    if type(entry) is not dict or type(entry.get("name")) is not str:
        raise ValueError("a tensor has no name")
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if datatype not in DATATYPES:
        raise ValueError(f"tensor {name!r}: {datatype!r} is not a datatype")
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"tensor {name!r}: {shape!r} is not a shape")
    return name, datatype, shape


def _from_json(name: str, datatype: str, data: Any) -> list[Any]:
    flat = data
    while type(flat) is list and flat and type(flat[0]) is list:
        try:
            flat = [each for row in flat for each in row]
        except TypeError:
            break
    kinds: set[type] = {str} if datatype == "BYTES" else {bool} if datatype == "BOOL" else {int, float}
    if type(flat) is not list or not kinds.issuperset(map(type, flat)):
        raise ValueError(f"tensor {name!r}: its data is not a list of {datatype}")
    return [each.encode() for each in flat] if datatype == "BYTES" else flat


def from_bytes(name: str, datatype: str, data: bytes) -> list[Any]:
    """The elements of a tensor out of their bytes. Raises ValueError."""
    if datatype == "BYTES":
        return _elements(name, data)
    if datatype == "BF16":
        # The upper half of a float32.
        wide = bytearray(2 * len(data) - len(data) % 2)
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        datatype, data = "FP32", bytes(wide)
    form = _FORMATS[datatype]
    count, rest = divmod(len(data), struct.calcsize("<" + form))
    if rest:
        raise ValueError(f"tensor {name!r}: {len(data)} bytes are no whole number of {datatype}")
    return list(struct.unpack(f"<{count}{form}", data))


def _elements(name: str, data: bytes) -> list[bytes]:
    found, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            raise ValueError(f"tensor {name!r}: an element of BYTES is cut")
        found.append(data[start + 4 : end])
        start = end
    return found


def to_bytes(tensor: Tensor) -> bytes:
    """The elements of a tensor as their bytes. Raises ValueError for one that its datatype can't hold."""
    data = tensor.data
    if tensor.datatype == "BYTES":
        return b"".join(len(each).to_bytes(4, "little") + each for each in data)
    narrowed = tensor.datatype == "BF16"
    try:
        packed = struct.pack(f"<{len(data)}{'f' if narrowed else _FORMATS[tensor.datatype]}", *data)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"tensor {tensor.name!r}: an element is not a {tensor.datatype}: {error}") from error
    if not narrowed:
        return packed
    narrow = bytearray(len(packed) // 2)
    narrow[0::2], narrow[1::2] = packed[2::4], packed[3::4]
    return bytes(narrow)
