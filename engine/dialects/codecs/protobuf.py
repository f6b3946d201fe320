"""Protocol Buffers' wire format, as far as messages without groups need it: what KServe's gRPC wire is made of.

Source: protobuf.dev, "Encoding": varints, length-delimited fields, packed repeated scalars.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


def varint(number: int) -> bytes:
    """An integer; one below zero takes ten bytes, as its two's complement in 64 bits."""
    number &= _MASK
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def field(number: int, value: str | bytes | int | bool) -> bytes:
    """A field that holds a text, bytes (also those of a message), an integer or a truth value."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def packed(number: int, values: Iterable[int]) -> bytes:
    """A field that holds many integers."""
    return field(number, b"".join(map(varint, values)))


def read(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, in their order: number and value. Raises ValueError for what is not a message."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if size > end - at:
            raise ValueError(f"a field of {size} bytes is cut")
        yield key >> 3, message[at : at + size]
        at += size


def signed(value: int | bytes) -> int:
    """An int64 out of its varint."""
    number = _whole(value)
    return number - (1 << 64) if number >> 63 else number


def text(value: int | bytes) -> str:
    """A text. Raises ValueError."""
    if isinstance(value, int):
        raise ValueError("got a number; expected a text")
    return value.decode()


def part(value: int | bytes) -> bytes:
    """The bytes of a field, or of a message in it. Raises ValueError."""
    if isinstance(value, int):
        raise ValueError("got a number; expected a message")
    return value


def integers(value: int | bytes) -> list[int]:
    """The integers of a repeated field, packed or one of those that are not; as they came, so not below zero."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def floats(value: int | bytes, form: str) -> list[float]:
    """The numbers of a repeated field; `form` is f or d, as in `struct`. Raises ValueError."""
    data = part(value)
    count, rest = divmod(len(data), struct.calcsize("<" + form))
    if rest:
        raise ValueError(f"{len(data)} bytes are no whole count of numbers")
    return list(struct.unpack(f"<{count}{form}", data))


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("got bytes; expected a number")
    return value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("an integer is cut, or too long")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _MASK, at
        shift += 7
