"""A file or folder of IPFS as a graph of blocks: the missing blocks, and the files that the graph makes.

Blocks wait on the disk until all are there; each is verified on arrival and again on use, so that a block torn by a
crash is fetched again.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.artifacts.unixfs import Node, bucket_prefix, decode
from engine.core.cid import IDENTITY, Cid
from engine.core.errors import SetupError

MAX_DEPTH = 64
"""Folders and parts of files within each other, at most."""
MAX_FILES = 100_000
"""Files and folders of one model, at most."""


@dataclass(frozen=True, slots=True)
class _Role:
    """The reason for a block: the way to the path's end, or (no segments left) all that is below it."""

    segments: tuple[str, ...] = ()
    level: int = 0
    """Shards passed on the way to the next segment."""


class Blocks:
    """Verified blocks in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, cid: Cid) -> bytes | None:
        """Returns a block; None if it is missing or damaged."""
        if cid.hash_code == IDENTITY:
            return cid.digest
        try:
            block = (self._folder / str(cid)).read_bytes()
        except FileNotFoundError:
            return None
        return block if cid.fits(block) else None

    def write(self, cid: Cid, block: bytes) -> None:
        (self._folder / str(cid)).write_bytes(block)


class Dag:
    """The known part of the graph. Blocks may be added in any order in which a parent comes before its parts."""

    def __init__(self, root: Cid, path: str, blocks: Blocks, max_bytes: int) -> None:
        """Takes up the blocks that are already on the disk. Raises SetupError."""
        self._blocks = blocks
        self._max_bytes = max_bytes
        self._expanded: set[Cid] = set()
        self.wanted: dict[Cid, set[_Role]] = {}
        self.size_bytes = 0
        """Size of the blocks on the disk."""
        self.target: Cid | None = None
        """The target of the path, once it is known."""
        segments = tuple(part for part in path.split("/") if part)
        if any(part in (".", "..") for part in segments):
            raise SetupError(f"{path!r}: a path on IPFS has no '.' or '..'")
        self._want(root, _Role(segments))

    def add(self, cid: Cid, block: bytes) -> bool:
        """Takes a missing block; False for any other. Raises SetupError for a block that is not `cid`, and for one that
        is not a file or folder."""
        if cid not in self.wanted:
            return False
        try:
            right = cid.fits(block)
        except ValueError as error:
            raise SetupError(str(error)) from error
        if not right:
            raise Forged(f"bytes that are not {cid}")
        self._blocks.write(cid, block)
        self._expand(cid, block)
        return True

    def _want(self, root: Cid, role: _Role) -> None:
        """Notes a missing block, or continues at once with those on the disk."""
        waiting = [(root, role)]
        while waiting:
            cid, role = waiting.pop()
            if not role.segments and cid in self._expanded:
                self.target = self.target or cid
                continue
            block = self._blocks.read(cid) if cid not in self.wanted else None
            if block is None:
                self.wanted.setdefault(cid, set()).add(role)
            else:
                waiting += self._below(cid, block, role)

    def _expand(self, cid: Cid, block: bytes) -> None:
        for role in self.wanted.pop(cid):
            for below, below_role in self._below(cid, block, role):
                self._want(below, below_role)

    def _below(self, cid: Cid, block: bytes, role: _Role) -> list[tuple[Cid, _Role]]:
        """Returns the blocks that a block leads to. Raises SetupError."""
        self.size_bytes += len(block)
        if self.size_bytes > self._max_bytes:
            raise SetupError(f"it is larger than storage.max_bytes={self._max_bytes} allows")
        try:
            node = decode(cid, block)
            if role.segments:
                return [_step(node, role)]
        except ValueError as error:
            raise SetupError(str(error)) from error
        if self.target is None:
            self.target = cid
        self._expanded.add(cid)
        return [(link.cid, _Role()) for link in node.links if link.cid not in self._expanded]

    # -- the files ----------------------------------------------------------------------------------------------

    def write_out(self, into: Path) -> Path:
        """Makes the file, or the folder with its files, once no block is missing. Raises SetupError."""
        assert self.target is not None
        shutil.rmtree(into, ignore_errors=True)
        self._left_bytes, self._left_files = self._max_bytes, MAX_FILES
        try:
            node = self._node(self.target)
            if node.kind == "file":
                into.parent.mkdir(parents=True, exist_ok=True)
                self._write_file(node, into)
            else:
                self._write_folder(node, into, 0)
        except ValueError as error:
            raise SetupError(str(error)) from error
        return into

    def _node(self, cid: Cid) -> Node:
        block = self._blocks.read(cid)
        if block is None:
            raise SetupError(f"the block {cid} is gone from the disk; fetch it again")
        return decode(cid, block)

    def _write_file(self, node: Node, path: Path) -> None:
        # Every part is held to the size that its parent states, so the root's size is the file's: a few blocks that
        # name
        # each other again and again can't make more.
        self._left_bytes -= node.size_bytes
        if self._left_bytes < 0:
            raise SetupError(f"it is larger than storage.max_bytes={self._max_bytes} allows")
        free = shutil.disk_usage(path.parent).free
        if node.size_bytes > free:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        with path.open("wb") as file:
            for piece in self._content(node, node.size_bytes, 0):
                file.write(piece)

    def _content(self, node: Node, size_bytes: int, depth: int) -> Iterator[bytes]:
        if node.kind != "file" or node.size_bytes != size_bytes or depth > MAX_DEPTH:
            raise ValueError("a part of a file is not what its parent says")
        yield node.data
        for link, size in zip(node.links, node.sizes, strict=True):
            if size:  # parts without a byte could be named without end
                yield from self._content(self._node(link.cid), size, depth + 1)

    def _write_folder(self, node: Node, folder: Path, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise SetupError(f"folders more than {MAX_DEPTH} deep")
        folder.mkdir(parents=True)
        for name, cid in self._entries(node, set(), 0):
            self._left_files -= 1
            if self._left_files < 0:
                raise SetupError(f"more than {MAX_FILES} files")
            path = folder / _safe(name)
            if path.exists():
                raise SetupError(f"a folder names {name!r} twice")
            child = self._node(cid)
            if child.kind == "file":
                self._write_file(child, path)
            else:
                self._write_folder(child, path, depth + 1)

    def _entries(self, node: Node, shards: set[Cid], level: int) -> Iterator[tuple[str, Cid]]:
        """Yields the names in a folder; `shards`: its parts so far."""
        if node.kind == "directory":
            yield from ((link.name, link.cid) for link in node.links)
            return
        if node.kind != "shard":
            raise SetupError(f"it holds a {node.kind}, which is not followed; name the file itself")
        for link in node.links:
            name = link.name[node.prefix_chars :]
            if name:
                yield name, link.cid
            else:
                if link.cid in shards or len(shards) > MAX_FILES or level > MAX_DEPTH:
                    # Names are in the bucket of their hash, so two honest parts of a folder always differ.
                    raise SetupError("a sharded folder repeats a part of itself, or has too many parts")
                shards.add(link.cid)
                yield from self._entries(self._node(link.cid), shards, level + 1)


class Forged(SetupError):
    """Raised for bytes under a content id that is not theirs."""


def _step(node: Node, role: _Role) -> tuple[Cid, _Role]:
    """Returns the next block on the way. Raises ValueError, SetupError."""
    name, rest = role.segments[0], role.segments[1:]
    if node.kind == "directory":
        for link in node.links:
            if link.name == name:
                return link.cid, _Role(rest)
    elif node.kind == "shard":
        prefix = bucket_prefix(name, node.fanout, role.level)
        for link in node.links:
            if link.name == prefix + name:
                return link.cid, _Role(rest)
            if link.name == prefix:
                return link.cid, _Role(role.segments, role.level + 1)
    else:
        raise SetupError(f"the path continues with {name!r}, below something that is not a folder")
    raise SetupError(f"the folder has no {name!r}")


def _safe(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name or len(name.encode()) > 255:
        raise SetupError(f"{name[:80]!r} can't be a file's name")
    return name
