"""Content ids: CIDv1, base32, sha2-256. The same bytes have the same name everywhere.

Sources: CID (github.com/multiformats/cid, "CIDv1"), multihash (0x12 = sha2-256, 0x20 bytes), multicodec's table
(0x55 = raw, 0x0200 = json), multibase (`b` = RFC 4648 base32, lower case, no padding), unsigned varints (LEB128).
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

RAW = 0x55
JSON = 0x0200

_SHA2_256 = b"\x12\x20"
_READ_BYTES = 1024 * 1024


def cid(data: bytes, codec: int = RAW) -> str:
    """The content id of some bytes."""
    return cid_of_digest(hashlib.sha256(data).digest(), codec)


def cid_of_digest(digest: bytes, codec: int = RAW) -> str:
    """The content id of what has this sha2-256 digest. Raises ValueError for a digest that is not 32 bytes."""
    if len(digest) != 32:
        raise ValueError(f"digest: expected the 32 bytes of sha2-256, got {len(digest)}")
    binary = b"\x01" + _varint(codec) + _SHA2_256 + digest
    return "b" + base64.b32encode(binary).decode("ascii").rstrip("=").lower()


def cid_of_file(path: Path) -> str:
    """The raw content id of a whole file, read in pieces: one hash over all of it, not IPFS's tree of blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return cid_of_digest(digest.digest())


def cid_of_json(value: Any) -> str:
    """The content id of a JSON value, whatever the order of its keys. Raises ValueError for what JSON can't say."""
    return cid(canonical_json(value), JSON)


def canonical_json(value: Any) -> bytes:
    """UTF-8, keys sorted, no spaces; numbers as Python writes them. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
