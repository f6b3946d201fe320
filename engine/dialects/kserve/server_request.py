"""The shared part of the servers of KServe's wires: a client's tensors in the canonical form, and back.

One tensor of texts is an embedding; everything else is task `tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.server import client_key, unpacked
from engine.dialects.kserve.reply import entry
from engine.dialects.kserve.request import INPUT, tensor
from engine.dialects.kserve.tensors import Tensor
from engine.dialects.server import ClientCall

OUTPUT = "embedding"
"""The tensor of the vectors, where the client names none."""
METADATA: dict[str, Any] = {
    "versions": ["1"],
    "platform": "engine",
    "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, -1]}],
}
"""The metadata of every model, for clients that read it: text in, vectors out."""
SERVER: dict[str, Any] = {"name": "engine", "version": "1", "extensions": ["model_repository"]}


@dataclass(slots=True)
class KServeCall(ClientCall):
    """A request, and what its reply repeats."""

    id: str | None = None
    output: str = OUTPUT


def client_call(
    model: str,
    tensors: list[Tensor],
    outputs: list[str],
    headers: Mapping[str, str],
    *,
    call_id: Any = None,
    version: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> KServeCall:
    """Returns what a client requests. Raises InvalidRequest."""
    if not tensors:
        raise InvalidRequest("inputs: there is no tensor. Next: send one")
    body: dict[str, Any] = {"model": model}
    texts = _texts(tensors) if not parameters and len(outputs) < 2 else None
    if texts is not None:
        body["input"] = texts
        if tensors[0].name != INPUT:
            body["input_tensor"] = tensors[0].name
        if outputs:
            body["output_tensor"] = outputs[0]
    else:
        body["inputs"] = {each.name: entry(each) for each in tensors}
        if outputs:
            body["outputs"] = outputs
        if parameters:
            body["parameters"] = parameters
    if version:
        body["model_version"] = version
    return KServeCall(
        "tensors" if texts is None else "embedding",
        body,
        False,
        model,
        client_key(headers),
        id=call_id if type(call_id) is str and call_id else None,
        output=outputs[0] if outputs else OUTPUT,
    )


def reply_tensors(call: ClientCall, body: dict[str, Any]) -> list[Tensor]:
    """The tensors of a canonical reply."""
    if call.task == "tensors":
        return [tensor(value, name, f"outputs.{name}") for name, value in body["outputs"].items()]
    rows = [unpacked(each) if type(each) is str else each for each in (item["embedding"] for item in body["data"])]
    flat = [number for row in rows for number in row]
    return [Tensor(output_of(call), "FP32", [len(rows), len(rows[0])], flat)]


def output_of(call: ClientCall) -> str:
    return call.output if isinstance(call, KServeCall) else OUTPUT


def _texts(tensors: list[Tensor]) -> list[str] | None:
    """The texts of the only tensor, None where there are others or it holds something else."""
    if len(tensors) != 1 or tensors[0].datatype != "BYTES" or math.prod(tensors[0].shape[1:]) != 1:
        return None
    if not tensors[0].data:
        raise InvalidRequest("inputs: the tensor is empty. Next: put a text into it")
    try:
        return [text.decode() for text in tensors[0].data]
    except UnicodeDecodeError:
        return None
