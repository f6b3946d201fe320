"""TensorFlow Serving's REST wire, `:predict`, as OpenVINO Model Server speaks it before 2026.3.

Requests go by columns (`inputs`), which keep each tensor whole; with `row_format: true` by rows (`instances`), which
some models want. Replies say neither shape nor datatype: these are read off the values. Sources: TensorFlow Serving,
"RESTful API" ("Predict API", "Model status API", "Model Metadata API"); OVMS, "TensorFlow Serving compatible RESTful
API".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import unstreamable
from engine.dialects.common.boundary import reads_reply, writes_request
from engine.dialects.common.error_body import request_id
from engine.dialects.common.json_body import lenient, malformed, written
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.kserve.client import KServeDialect, segment
from engine.dialects.kserve.model_info import shown, states
from engine.dialects.kserve.reply import canonical
from engine.dialects.kserve.request import VECTORS, ask, signature
from engine.dialects.kserve.tensors import Tensor, flat

_TYPES = {
    "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_HALF": "FP16", "DT_BFLOAT16": "BF16", "DT_INT8": "INT8",
    "DT_INT16": "INT16", "DT_INT32": "INT32", "DT_INT64": "INT64", "DT_UINT8": "UINT8", "DT_UINT16": "UINT16",
    "DT_UINT32": "UINT32", "DT_UINT64": "UINT64", "DT_BOOL": "BOOL", "DT_STRING": "BYTES",
}  # fmt: skip
"""TensorFlow's datatypes (tensorflow/core/framework/types.proto) in KServe's words."""


class PredictDialect(KServeDialect):
    """TensorFlow Serving's wire below the server's address; the paths begin with /v1."""

    @writes_request
    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if stream:
            raise unstreamable(task)
        unsupported = Unsupported("TensorFlow Serving's wire", drop_unsupported)
        by_rows = body.get("row_format", task == "embedding")
        asked = ask(task, {name: value for name, value in body.items() if name != "row_format"}, unsupported)
        if asked.outputs and task == "tensors":
            unsupported.lose("body.outputs", "this wire gives all that the model has")
        parameters = dict(asked.parameters)
        wire: dict[str, Any] = {}
        name = parameters.pop("signature_name", None)
        if name is not None:
            wire["signature_name"] = name
        for name in parameters:
            unsupported.lose(f"body.parameters.{name}")
        columns = {tensor.name: nested(tensor) for tensor in asked.inputs}
        if not by_rows:
            wire["inputs"] = columns
        elif task == "embedding" and not signature(body, "inputs") and body.get("input_tensor") is None:
            (wire["instances"],) = columns.values()  # of a model with one input, the name is left out
        else:
            wire["instances"] = rows_of(columns, "body.row_format")
        version = f"/versions/{segment(asked.version)}" if asked.version else ""
        path = f"/v1/models/{segment(model)}{version}:predict"
        return WireCall("POST", path, written(wire), warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        body = self.reply_object(status, headers, content)
        try:
            reply = canonical(task, "", _tensors(task, body))
        except ValueError as error:
            raise malformed(f"not a reply of TensorFlow Serving's wire ({error})", headers, content) from error
        return Reply(reply, None, request_id(headers))

    def models(self, content: bytes) -> list[str]:
        body = lenient(content)
        return [name for name, entry in body.items() if type(entry) is dict] if type(body) is dict else []

    def questions(self, model: str) -> list[WireCall]:
        """The model's metadata and its status."""
        path = f"/v1/models/{segment(model)}"
        return [WireCall("GET", f"{path}/metadata", b""), WireCall("GET", path, b"")]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        told, held = [lenient(each.content) if each.status == 200 else None for each in answers]
        found = ServerInfo(missing=answers[1].status == 404)
        if type(held) is dict:
            found.found = states({model: held}).removeprefix(", ") or "the model is available"
        metadata = _signature(told)
        if metadata["inputs"]:
            found.defaults = {"metadata": metadata}
            found.found += "".join(f", {side}: {shown(entries)}" for side, entries in metadata.items() if entries)
        return found


def nested(tensor: Tensor) -> Any:
    """A tensor's elements in lists as deep as its shape; bytes that are no text as `{"b64": …}`."""
    rows: list[Any] = [_element(each) for each in tensor.data] if tensor.datatype == "BYTES" else list(tensor.data)
    for size in reversed(tensor.shape[1:]):
        rows = [rows[start : start + size] for start in range(0, len(rows), size)] if size else []
    return rows if tensor.shape else rows[0]


def _element(element: bytes) -> Any:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode("ascii")}


def rows_of(columns: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """One object a row, which all tensors must have in the same number. Raises InvalidRequest."""
    sizes = {name: len(column) if type(column) is list else 0 for name, column in columns.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise InvalidRequest(f"{where}: the tensors have different numbers of rows: {sizes}")
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _tensors(task: str, body: dict[str, Any]) -> list[Tensor]:
    """The output tensors, out of columns or rows. Raises ValueError."""
    found = body.get("outputs")
    if found is None:
        found = body.get("predictions")
        if type(found) is list and found and all(type(row) is dict for row in found):
            found = {name: [row.get(name) for row in found] for name in found[0]}
    if found is None:
        raise ValueError("it has neither predictions nor outputs")
    columns = found if type(found) is dict else {VECTORS[0] if task == "embedding" else "output": found}
    return [_tensor(str(name), column) for name, column in columns.items()]


def _tensor(name: str, column: Any) -> Tensor:
    shape, elements = flat(column)
    kinds = set(map(type, elements))
    if kinds <= {int, float} and float in kinds:
        return Tensor(name, "FP32", shape, elements)
    if kinds == {int}:
        return Tensor(name, "INT64", shape, elements)
    if kinds == {bool}:
        return Tensor(name, "BOOL", shape, elements)
    try:
        return Tensor(name, "BYTES", shape, [_read_element(each) for each in elements])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name!r} holds values of different kinds") from error


def _read_element(element: Any) -> bytes:
    return element.encode() if type(element) is str else base64.b64decode(element["b64"], validate=True)


def _signature(told: Any) -> dict[str, list[dict[str, Any]]]:
    """The tensors of `serving_default`, or of the only signature, in KServe's form."""
    found: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    try:
        signatures = told["metadata"]["signature_def"]["signature_def"]
        chosen = signatures.get("serving_default") or next(iter(signatures.values()))
        for side, entries in found.items():
            for name, entry in chosen[side].items():
                shape = [int(each["size"]) for each in entry["tensor_shape"].get("dim") or ()]
                entries.append({"name": name, "datatype": _TYPES[entry["dtype"]], "shape": shape})
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration):
        return {"inputs": [], "outputs": []}
    return found
