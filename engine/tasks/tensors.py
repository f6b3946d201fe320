"""Task `tensors`: named tensors in, named tensors out. The form is ours; docs/providers/kserve.md tells it."""

from __future__ import annotations

import base64
from typing import Any

from engine.core.errors import Malformed
from engine.dialects.kserve.tensors import Tensor, to_bytes


def pack(body: dict[str, Any]) -> None:
    """Packs the elements of a reply's tensors as base64 of their bytes, little-endian, in place; texts stay a list.
    Raises Malformed for an element that its datatype can't hold."""
    for name, entry in body["outputs"].items():
        if entry["datatype"] == "BYTES":
            continue
        tensor = Tensor(name, entry["datatype"], entry["shape"], entry["data"])
        try:
            entry["data"] = base64.b64encode(to_bytes(tensor)).decode("ascii")
        except ValueError as error:
            raise Malformed(f"HTTP 200: {error}") from error
