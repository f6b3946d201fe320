"""Reads the nodes of IPFS's files and folders: dag-pb around UnixFS. Pure functions of bytes.

Sources: UnixFS (specs.ipfs.tech/unixfs), "dag-pb Node", "dag-pb Types"; dag-pb (ipld.io/specs/codecs/dag-pb), "Format";
Protocol Buffers encoding. The size of a block bounds every value in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.artifacts.murmur3 import murmur3_x64_64
from engine.core.cid import DAG_PB, RAW, Cid, parse_binary

Kind = Literal["file", "directory", "shard", "symlink"]

_KINDS: dict[int, Kind] = {0: "file", 1: "directory", 2: "file", 4: "symlink", 5: "shard"}
_MURMUR3_X64_64 = 0x22
_MAX_FANOUT = 1024


@dataclass(frozen=True, slots=True)
class Link:
    """A named way to another node."""

    name: str
    cid: Cid


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded node."""

    kind: Kind
    data: bytes
    """A file's first bytes, before those of its links."""
    links: tuple[Link, ...]
    sizes: tuple[int, ...]
    """The number of bytes behind each link of a file."""
    fanout: int = 0
    """The number of buckets of a shard."""

    @property
    def size_bytes(self) -> int:
        """Returns the number of bytes of a file."""
        return len(self.data) + sum(self.sizes)

    @property
    def prefix_chars(self) -> int:
        """Returns how many characters of a link's name in a shard are its bucket."""
        return len(f"{self.fanout - 1:X}")


def decode(cid: Cid, block: bytes) -> Node:
    """Returns the node in a block. Raises ValueError for a block that is not part of a file or folder."""
    if cid.codec == RAW:
        return Node("file", block, (), ())
    if cid.codec != DAG_PB:
        raise ValueError(f"{cid}: codec 0x{cid.codec:x} is not a file or folder (dag-pb or raw)")
    data, links = b"", []
    for field, value in _fields(block):
        if field == 1 and isinstance(value, bytes):
            data = value
        elif field == 2 and isinstance(value, bytes):
            links.append(_link(value))
    return _unixfs(cid, data, tuple(links))


def bucket_prefix(name: str, fanout: int, level: int) -> str:
    """Returns the first characters of the link that leads to `name`, `level` shards below the root shard.

    Raises ValueError when the hash has no bits left: no such name.
    """
    bits = fanout.bit_length() - 1
    left = 64 - bits * (level + 1)
    if left < 0:
        raise ValueError("a sharded folder is deeper than its hash is long")
    bucket = murmur3_x64_64(name.encode("utf-8")) >> left & (fanout - 1)
    return f"{bucket:0{len(f'{fanout - 1:X}')}X}"


def _unixfs(cid: Cid, data: bytes, links: tuple[Link, ...]) -> Node:
    kind: int | None = None
    content, sizes, declared, hash_type, fanout = b"", [], 0, 0, 0
    for field, value in _fields(data):
        if field == 2 and isinstance(value, bytes):
            content = value
        elif field == 4 and isinstance(value, bytes):  # packed, as newer encoders write numbers
            place = 0
            while place < len(value):
                size, place = _number(value, place)
                sizes.append(size)
        elif isinstance(value, int):
            if field == 1:
                kind = value
            elif field == 3:
                declared = value
            elif field == 4:
                sizes.append(value)
            elif field == 5:
                hash_type = value
            elif field == 6:
                fanout = value
    if kind not in _KINDS:
        raise ValueError(f"{cid}: UnixFS type {kind} is not a file or folder")
    if _KINDS[kind] == "shard":
        if fanout < 8 or fanout > _MAX_FANOUT or fanout & (fanout - 1) or hash_type != _MURMUR3_X64_64:
            raise ValueError(f"{cid}: a sharded folder with fanout {fanout} and hash 0x{hash_type:x}")
        return Node("shard", b"", links, (), fanout)
    if _KINDS[kind] != "file":
        return Node(_KINDS[kind], content, links, ())
    if len(sizes) != len(links) or len(content) + sum(sizes) != declared:
        raise ValueError(f"{cid}: a file's sizes do not add up")
    if any(link.name for link in links):
        raise ValueError(f"{cid}: a part of a file has a name")
    return Node("file", content, links, tuple(sizes))


def _link(block: bytes) -> Link:
    name, cid = "", None
    for field, value in _fields(block):
        if field == 1 and isinstance(value, bytes):
            cid, end = parse_binary(value)
            if end != len(value):
                raise ValueError("a link's content id has bytes after it")
        elif field == 2 and isinstance(value, bytes):
            name = value.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if cid is None:
        raise ValueError("a link without a content id")
    return Link(name, cid)


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """Returns the fields of a protobuf message, in order: number, and bytes or a whole number."""
    found: list[tuple[int, int | bytes]] = []
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        wire = tag & 7
        if wire == 0:
            number, place = _number(message, place)
            found.append((tag >> 3, number))
            continue
        if wire == 2:
            size, place = _number(message, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"protobuf: wire type {wire}")
        if place + size > len(message):
            raise ValueError("protobuf: a field is cut")
        found.append((tag >> 3, bytes(message[place : place + size])))
        place += size
    return found


def _number(message: bytes, place: int) -> tuple[int, int]:
    """Returns a varint of protobuf, which may use up to 10 bytes, more than it needs."""
    number = 0
    for at in range(place, min(len(message), place + 10)):
        number |= (message[at] & 0x7F) << (7 * (at - place))
        if message[at] < 0x80:
            return number & (1 << 64) - 1, at + 1
    raise ValueError("protobuf: a number is cut")
