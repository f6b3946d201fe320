"""MurmurHash3 for x64, the first 64 of its 128 bits: IPFS sorts the names of a sharded folder by it.

Source: Austin Appleby's MurmurHash3.cpp, MurmurHash3_x64_128 (public domain algorithm), seed 0; multicodec's table,
0x22 = murmur3-x64-64.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def murmur3_x64_64(data: bytes) -> int:
    """Returns the hash as a number of 64 bits."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for place in range(0, whole, 16):
        k1 = int.from_bytes(data[place : place + 8], "little")
        k2 = int.from_bytes(data[place + 8 : place + 16], "little")
        h1 = (_turn(h1 ^ _mix1(k1), 27) + h2) & _MASK
        h1 = (h1 * 5 + 0x52DCE729) & _MASK
        h2 = (_turn(h2 ^ _mix2(k2), 31) + h1) & _MASK
        h2 = (h2 * 5 + 0x38495AB5) & _MASK
    tail = data[whole:]
    if len(tail) > 8:
        h2 ^= _mix2(int.from_bytes(tail[8:], "little"))
    if tail:
        h1 ^= _mix1(int.from_bytes(tail[:8], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    return (_final(h1) + _final(h2)) & _MASK


def _mix1(k: int) -> int:
    return (_turn((k * _C1) & _MASK, 31) * _C2) & _MASK


def _mix2(k: int) -> int:
    return (_turn((k * _C2) & _MASK, 33) * _C1) & _MASK


def _turn(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _final(k: int) -> int:
    k = ((k ^ (k >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    k = ((k ^ (k >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    return k ^ (k >> 33)
