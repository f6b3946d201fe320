"""Reads a CAR stream (version 1) as it arrives: blocks with the content ids that the sender claims for them.

Source: CARv1 (ipld.io/specs/transport/car/carv1): a varint and a DAG-CBOR header, then sections of a varint, a content
id and a block. A client can't rely on the header's roots (Trustless Gateway, "CAR roots").
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.core.cid import Cid, parse_binary, read_varint

_MAX_HEADER_BYTES = 1024 * 1024
_MAX_CID_BYTES = 256
_VERSION_1 = b"\x67version\x01"
"""CBOR: the text `version` of 7 characters, then the number 1."""


class CarReader:
    """Takes pieces as they arrive, yields blocks. Holds at most one block and one piece."""

    def __init__(self, max_block_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_section_bytes = max_block_bytes + _MAX_CID_BYTES
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[tuple[Cid, bytes]]:
        """Yields the blocks that are complete now, not verified yet. Raises ValueError for bytes that are not a CAR."""
        self._buffer += piece
        while (section := self._section()) is not None:
            if not self._begun:
                if _VERSION_1 not in section:
                    raise ValueError("not a CAR of version 1")
                self._begun = True
                continue
            cid, start = parse_binary(section)
            yield cid, section[start:]

    def close(self) -> None:
        """Raises ValueError when the stream ended in the middle of a block, or before its header."""
        if self._buffer or not self._begun:
            raise ValueError("the CAR is cut")

    def _section(self) -> bytes | None:
        most = self._max_section_bytes if self._begun else _MAX_HEADER_BYTES
        head = bytes(self._buffer[:9])
        if not any(byte < 0x80 for byte in head) and len(head) < 9:
            return None  # the length itself is not complete yet
        size, start = read_varint(head)
        if size == 0 or size > most:
            raise ValueError(f"a section of {size} bytes")
        if len(self._buffer) < start + size:
            return None
        section = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return section
