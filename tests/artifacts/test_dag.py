"""Graphs that an honest tool would not make: their author may be hostile, and the content id still right."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.artifacts.dag import Blocks, Dag, Forged
from engine.artifacts.unixfs import decode
from engine.core.cid import DAG_PB, IDENTITY, RAW, SHA2_256, Cid
from engine.core.errors import SetupError


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(place: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def id_of(block: bytes, codec: int = DAG_PB) -> Cid:
    return Cid(codec, SHA2_256, hashlib.sha256(block).digest())


def binary(cid: Cid) -> bytes:
    return b"\x01" + number(cid.codec) + number(cid.hash_code) + number(len(cid.digest)) + cid.digest


def node(kind: int, links: list[tuple[str, Cid]], data: bytes = b"", **more: object) -> bytes:
    """A dag-pb block: links first, as encoders write them."""
    unixfs = field(1, kind) + (field(2, data) if data else b"")
    if kind == 2:
        sizes = more["sizes"]
        assert isinstance(sizes, list)
        unixfs += field(3, more.get("size", len(data) + sum(sizes))) + b"".join(field(4, size) for size in sizes)  # type: ignore[arg-type]
    if kind == 5:
        unixfs += field(5, 0x22) + field(6, more["fanout"])  # type: ignore[arg-type]
    return b"".join(field(2, field(1, binary(cid)) + field(2, name.encode())) for name, cid in links) + field(1, unixfs)


def make(tmp_path: Path, *blocks: tuple[Cid, bytes], path: str = "", max_bytes: int = 1 << 20) -> Path:
    """Adds the blocks, the root first, and writes the files."""
    dag = Dag(blocks[0][0], path, Blocks(tmp_path / "blocks"), max_bytes)
    for cid, block in blocks:
        dag.add(cid, block)
    assert not dag.wanted
    return dag.write_out(tmp_path / "out")


LEAF = b"a leaf"
LEAF_ID = id_of(LEAF, RAW)


def block(data: bytes) -> tuple[Cid, bytes]:
    return id_of(data), data


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "/etc/passwd", "a\0b", "x" * 256])
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="can't be a file's name"):
        make(tmp_path, block(node(1, [(name, LEAF_ID)])), (LEAF_ID, LEAF))
    assert not (tmp_path / "b").exists()


def test_a_name_in_a_shard_is_checked_as_well(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="can't be a file's name"):
        make(tmp_path, block(node(5, [("AB..", LEAF_ID)], fanout=256)), (LEAF_ID, LEAF))


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="names 'a' twice"):
        make(tmp_path, block(node(1, [("a", LEAF_ID), ("a", LEAF_ID)])), (LEAF_ID, LEAF))


@pytest.mark.parametrize(
    ("sizes", "size", "why"),
    [([6, 6], 12, "add up"), ([6], 7, "add up"), ([5], 5, "not what its parent says"), ([], 0, "add up")],
)
def test_sizes_that_do_not_add_up_are_refused(tmp_path: Path, sizes: list[int], size: int, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        make(tmp_path, block(node(2, [("", LEAF_ID)], sizes=sizes, size=size)), (LEAF_ID, LEAF))


def test_a_folder_is_no_part_of_a_file(tmp_path: Path) -> None:
    folder = node(1, [])
    with pytest.raises(SetupError, match="not what its parent says"):
        make(tmp_path, block(node(2, [("", id_of(folder))], sizes=[6])), block(folder))


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    link = node(4, [], b"/etc/passwd")
    with pytest.raises(SetupError, match="it holds a symlink, which is not followed"):
        make(tmp_path, block(node(1, [("a", id_of(link))])), block(link))


@pytest.mark.parametrize("fanout", [0, 4, 12, 2048, 1 << 40])
def test_a_shard_with_an_unreasonable_fanout_is_refused(tmp_path: Path, fanout: int) -> None:
    with pytest.raises(SetupError, match=f"fanout {fanout}"):
        make(tmp_path, block(node(5, [], fanout=fanout)))


def test_a_file_that_names_one_block_again_and_again_is_bounded(tmp_path: Path) -> None:
    level = (LEAF_ID, LEAF)
    blocks = [level]
    size = len(LEAF)
    for _ in range(12):  # 10^12 times six bytes, in 13 small blocks
        wide = node(2, [("", level[0])] * 10, sizes=[size] * 10)
        level, size = block(wide), size * 10
        blocks.insert(0, level)
    with pytest.raises(SetupError, match=r"larger than storage\.max_bytes=1048576 allows"):
        make(tmp_path, *blocks)


def test_parts_without_a_byte_are_not_walked(tmp_path: Path) -> None:
    level = block(node(2, [], sizes=[]))
    blocks = [level]
    for _ in range(12):
        level = block(node(2, [("", level[0])] * 10, sizes=[0] * 10))
        blocks.insert(0, level)
    assert make(tmp_path, *blocks).read_bytes() == b""


def test_folders_that_hold_each_other_without_end_are_bounded(tmp_path: Path) -> None:
    level = block(node(1, []))
    blocks = [level]
    for _ in range(70):
        level = block(node(1, [("d", level[0])]))
        blocks.insert(0, level)
    with pytest.raises(SetupError, match="folders more than 64 deep"):
        make(tmp_path, *blocks)


def test_a_shard_that_names_a_part_again_and_again_is_refused(tmp_path: Path) -> None:
    level = block(node(5, [], fanout=256))
    blocks = [level]
    for _ in range(8):
        level = block(node(5, [(f"{number:02X}", level[0]) for number in range(16)], fanout=256))
        blocks.insert(0, level)
    with pytest.raises(SetupError, match="repeats a part of itself"):
        make(tmp_path, *blocks)


def test_shards_within_shards_without_end_are_bounded(tmp_path: Path) -> None:
    level = block(node(5, [("00a", LEAF_ID)], fanout=256))
    blocks = [level, (LEAF_ID, LEAF)]
    for _ in range(1200):
        level = block(node(5, [("00", level[0])], fanout=256))
        blocks.insert(0, level)
    with pytest.raises(SetupError, match="too many parts"):
        make(tmp_path, *blocks)


def test_another_codec_is_not_a_file(tmp_path: Path) -> None:
    data = b"\xa0"
    with pytest.raises(SetupError, match="codec 0x71 is not a file or folder"):
        make(tmp_path, (id_of(data, 0x71), data))


def test_another_hash_is_refused_and_not_taken_on_trust(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="hash function 0x1e can't be checked here"):
        make(tmp_path, (Cid(RAW, 0x1E, b"x" * 32), LEAF))


def test_a_forged_block_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Forged, match=str(LEAF_ID)):
        make(tmp_path, (LEAF_ID, b"forged"))


def test_an_identity_id_brings_its_own_bytes(tmp_path: Path) -> None:
    inline = Cid(RAW, IDENTITY, b"inline")
    out = make(tmp_path, block(node(1, [("a.txt", inline)])))
    assert (out / "a.txt").read_bytes() == b"inline"


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="below something that is not a folder"):
        make(tmp_path, (LEAF_ID, LEAF), path="x/y")


def test_a_path_with_dots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has no '\.' or '\.\.'"):
        make(tmp_path, (LEAF_ID, LEAF), path="../x")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_node_or_a_value_error(data: bytes) -> None:
    try:
        decode(id_of(data), data)
    except ValueError:
        return


def test_a_file_with_data_and_packed_sizes_is_read(tmp_path: Path) -> None:
    unixfs = field(1, 2) + field(2, b"head ") + field(3, 5 + len(LEAF)) + field(4, number(len(LEAF)))
    root = field(2, field(1, binary(LEAF_ID))) + field(1, unixfs)
    assert make(tmp_path, block(root), (LEAF_ID, LEAF)).read_bytes() == b"head a leaf"
