"""CAR streams in pieces of any size, and what is not a CAR."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.artifacts.car import CarReader
from tests.artifacts.conftest import FIXTURES
from tests.servers.gateway import read_car


def read(data: bytes, piece: int = 4096, limit: int = 1 << 20) -> list[tuple[str, bytes]]:
    reader = CarReader(limit)
    found = [
        (str(cid), block)
        for place in range(0, len(data), piece)
        for cid, block in reader.feed(data[place : place + piece])
    ]
    reader.close()
    return found


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.car")), ids=lambda path: path.stem)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_blocks_are_read_whatever_the_pieces(path: Path, piece: int) -> None:
    data = path.read_bytes()
    assert read(data, piece) == [(cid, block) for cid, (_, block) in read_car(data)[1].items()]


@pytest.mark.parametrize("end", [1, 30, 60, 500, 7473])
def test_a_cut_stream_is_not_a_whole_one(end: int) -> None:
    with pytest.raises(ValueError, match="cut"):
        read((FIXTURES / "file.car").read_bytes()[:end])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a\xa1gversion\x02", "not a CAR of version 1"),  # CARv2's pragma
        (b"<html><body>no</body></html>" * 9, "not a CAR of version 1|a section of"),
        (b"\xff" * 9, "varint"),
        (b"\x00", "a section of 0 bytes"),
        (b"\xff\xff\xff\xff\x0f", "a section of"),
        (b"\x11\xa2eroots\x80gversion\x01\xff\xff\xff\x07", "a section of"),
        (b"\x11\xa2eroots\x80gversion\x01\x00", "a section of 0 bytes"),
        (b"\x11\xa2eroots\x80gversion\x01\x03\x02\x55\x12", "version 2"),
    ],
)
def test_what_is_not_a_car_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(data)


def test_a_section_is_bounded_by_the_limit_of_a_block() -> None:
    with pytest.raises(ValueError, match="a section of 1061 bytes"):
        read((FIXTURES / "folder.car").read_bytes()[:59] + b"\xa5\x08", limit=700)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_car_or_a_value_error(data: bytes) -> None:
    try:
        read(data, 50)
    except ValueError:
        return
    assert data[1:].startswith(b"\xa2") or b"version" in data
