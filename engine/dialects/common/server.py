"""Parts of server dialects that several wires share."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping


def client_key(headers: Mapping[str, str]) -> str | None:
    """The key that a client sent: a bearer token, or `api-key`, as Azure's clients have it."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("api-key") or None


def unpacked(vector: str) -> list[float]:
    """The numbers of a vector in base64 of little-endian float32."""
    packed = array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()
