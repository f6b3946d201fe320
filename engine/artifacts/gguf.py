"""Reads the metadata of a GGUF file: the facts that a runtime needs before it loads the weights.

Format: ggml's docs/gguf.md, version 3 (little endian; version 2 has the same layout).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.core.errors import SetupError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2),
}  # fmt: skip
"""Numbers in a block and bytes for it, by ggml type: F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K … Q6_K, BF16."""


def find(path: Path) -> Path:
    """Returns the GGUF file itself, or the only one in a folder. Raises SetupError."""
    if path.is_file():
        return path
    files = sorted(path.rglob("*.gguf"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise SetupError(f"model.sources: {path} must hold one .gguf file; found: {names}. Next: name the file itself")
    return files[0]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """The position of a tensor in the file."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as in numpy and torch."""
    kind: int
    """Its ggml type: the storage of its numbers."""
    offset: int
    """Bytes from the beginning of the file."""


def metadata(path: Path) -> dict[str, Any]:
    """Returns the scalar and string metadata; arrays (vocabularies) are skipped. Raises SetupError."""
    return read(path)[0]


def read(path: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
    """Returns the metadata as in `metadata`, and the table of tensors. Raises SetupError."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise SetupError(f"model.sources: {path} is not a GGUF file")
            version, tensors, count = struct.unpack("<IQQ", _exactly(file, 20))
            if version not in (2, 3):
                raise SetupError(f"model.sources: {path} is GGUF version {version}; 2 and 3 can be read")
            found: dict[str, Any] = {}
            for _ in range(count):
                key = _string(file).decode("utf-8")
                value = _value(file, struct.unpack("<I", _exactly(file, 4))[0])
                if value is not None:
                    found[key] = value
            table = _table(file, tensors, _alignment(found))
        # OpenVINO reads past the end of a truncated file, which kills the process.
        if any(tensor.offset + _size_bytes(tensor) > path.stat().st_size for tensor in table):
            raise _Damaged
        return found, table
    except (_Damaged, UnicodeDecodeError, KeyError, struct.error) as error:
        raise SetupError(f"model.sources: {path} is cut or damaged; delete it, so that it is fetched again") from error


class _Damaged(Exception):
    """Raised for impossible numbers in a file."""


def _alignment(found: dict[str, Any]) -> int:
    alignment = found.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0:
        raise _Damaged
    return alignment


def context_length(path: Path) -> int | None:
    """Returns the file's number of tokens of prompt and answer together."""
    found = metadata(path)
    length = found.get(f"{found.get('general.architecture')}.context_length")
    if not length:
        return None
    if type(length) is not int:
        raise SetupError(
            f"model.sources: {path}: got the context length {length!r}; expected a whole number. "
            "Fix: fetch the file from its author again"
        )
    return length


def _table(file: BinaryIO, count: int, alignment: int) -> list[TensorInfo]:
    rows = []
    for _ in range(count):
        name = _string(file).decode("utf-8")
        dimensions = struct.unpack("<I", _exactly(file, 4))[0]
        if dimensions > _DIMENSIONS:
            raise _Damaged
        # ggml lists the fastest dimension first.
        shape = struct.unpack(f"<{dimensions}Q", _exactly(file, 8 * dimensions))[::-1]
        kind, offset = struct.unpack("<IQ", _exactly(file, 12))
        rows.append((name, shape, kind, offset))
    start = -(-file.tell() // alignment) * alignment
    return [TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in rows]


def _size_bytes(tensor: TensorInfo) -> int:
    """Returns a tensor's bytes in the file; 1 for a type that is not in the table."""
    block, size_bytes = _BLOCKS.get(tensor.kind, (0, 1))
    return math.prod(tensor.shape) // block * size_bytes if block else size_bytes


def _value(file: BinaryIO, kind: int, depth: int = 0) -> Any:
    if kind == _STRING:
        return _string(file).decode("utf-8", "replace")
    if kind == _ARRAY:
        item, length = struct.unpack("<IQ", _exactly(file, 12))
        if depth >= _NESTED:
            raise _Damaged
        if item in _SCALARS:
            _skip(file, struct.calcsize(_SCALARS[item]) * length)
        else:
            for _ in range(length):
                _value(file, item, depth + 1)
        return None
    layout = _SCALARS[kind]
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))[0]


def _string(file: BinaryIO) -> bytes:
    return _exactly(file, struct.unpack("<Q", _exactly(file, 8))[0])


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes. The size is trusted only up to the file's end: memory is taken before the read."""
    if size > _READ_BYTES:
        _check_left(file, size)
    data = file.read(size)
    if len(data) != size:
        raise _Damaged
    return data


def _skip(file: BinaryIO, size: int) -> None:
    _check_left(file, size)
    file.seek(size, os.SEEK_CUR)


def _check_left(file: BinaryIO, size: int) -> None:
    if size > os.fstat(file.fileno()).st_size - file.tell():
        raise _Damaged


_READ_BYTES = 4096
"""A larger size is compared with the file's before memory is taken."""
_DIMENSIONS = 4
"""Dimensions of a tensor, at most, in ggml."""
_NESTED = 8
"""Arrays inside arrays, at most; no file has more than one level."""
