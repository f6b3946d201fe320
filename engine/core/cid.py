"""Content ids: CIDv1, base32, sha2-256. The same bytes have the same name everywhere.

Sources: CID (github.com/multiformats/cid, "CIDv1", "Decoding Algorithm"), multihash (0x12 = sha2-256, 0x20 bytes;
0x00 = identity), multicodec's table (0x55 = raw, 0x70 = dag-pb, 0x0200 = json), multibase (`b` = RFC 4648 base32, lower
case, no padding; `z` = base58btc; `f` = hexadecimal), unsigned varints (LEB128, at most 9 bytes).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAW = 0x55
DAG_PB = 0x70
JSON = 0x0200
SHA2_256 = 0x12
IDENTITY = 0x00

_SHA2_256 = b"\x12\x20"
_READ_BYTES = 1024 * 1024
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MAX_VARINT_BYTES = 9
_MAX_DIGEST_BYTES = 128


@dataclass(frozen=True, slots=True)
class Cid:
    """A parsed content id. Version 0 and version 1 of the same content are equal: codec and hash say it all."""

    codec: int
    hash_code: int
    digest: bytes

    def __str__(self) -> str:
        """As CIDv1 in base32."""
        head = b"\x01" + _varint(self.codec) + _varint(self.hash_code) + _varint(len(self.digest))
        return "b" + base64.b32encode(head + self.digest).decode("ascii").rstrip("=").lower()

    def fits(self, data: bytes) -> bool:
        """Returns True if these bytes are the content. Raises ValueError for a hash that can't be checked here."""
        if self.hash_code == SHA2_256:
            return hashlib.sha256(data).digest() == self.digest
        if self.hash_code == IDENTITY:
            return data == self.digest
        raise ValueError(
            f"{self}: hash function 0x{self.hash_code:x} can't be checked here, only sha2-256 and identity"
        )


def parse(text: str) -> Cid:
    """A content id of version 0 or 1 as text. Raises ValueError."""
    if len(text) == 46 and text.startswith("Qm"):
        return parse_binary(_from_base58(text))[0]
    base, digits = text[:1], text[1:]
    try:
        if base == "b":
            binary = base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
        elif base == "z":
            binary = _from_base58(digits)
        elif base == "f":
            binary = bytes.fromhex(digits)
        else:
            raise ValueError("expected base32 (b…), base58 (z… or Qm…) or hexadecimal (f…)")
        found, end = parse_binary(binary)
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is not a content id: {error}") from error
    if end != len(binary):
        raise ValueError(f"{text[:80]!r} is not a content id: bytes follow its digest")
    return found


def parse_binary(data: bytes, start: int = 0) -> tuple[Cid, int]:
    """The content id at a place in some bytes, and where it ends. Raises ValueError."""
    if data[start : start + 2] == _SHA2_256:
        end = start + 34
        if len(data) < end:
            raise ValueError("it is cut")
        return Cid(DAG_PB, SHA2_256, bytes(data[start + 2 : end])), end
    version, place = read_varint(data, start)
    if version != 1:
        raise ValueError(f"version {version}; 0 and 1 can be read")
    codec, place = read_varint(data, place)
    hash_code, place = read_varint(data, place)
    size, place = read_varint(data, place)
    if size > _MAX_DIGEST_BYTES and hash_code != IDENTITY:
        raise ValueError(f"its digest is {size} bytes long")
    if hash_code == SHA2_256 and size != 32:
        raise ValueError(f"a sha2-256 digest of {size} bytes")
    if place + size > len(data):
        raise ValueError("it is cut")
    return Cid(codec, hash_code, bytes(data[place : place + size])), place + size


def read_varint(data: bytes, start: int = 0) -> tuple[int, int]:
    """The unsigned varint at a place in some bytes, and where it ends. Raises ValueError."""
    number = 0
    for place in range(start, min(len(data), start + _MAX_VARINT_BYTES)):
        byte = data[place]
        number |= (byte & 0x7F) << (7 * (place - start))
        if byte < 0x80:
            if byte == 0 and place > start:
                raise ValueError("a varint is longer than it need be")
            return number, place + 1
    raise ValueError("a varint is cut or longer than 9 bytes")


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


def _from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"{character!r} is not a digit of base58")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
