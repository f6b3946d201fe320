"""TensorFlow Serving's REST wire, `:predict`, as a server speaks it. Sources: as in `kserve_predict`.

Texts in a single unnamed input are embedded; everything else is task `tensors`. A reply comes in the form of its
request: `predictions` for rows, `outputs` for columns.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json
from engine.dialects.kserve.request import tensor
from engine.dialects.kserve.server import KServeServerDialect
from engine.dialects.kserve.server_request import METADATA, KServeCall, client_call, reply_tensors
from engine.dialects.server import ClientCall
from engine.dialects.tensorflow_serving.client import nested, rows_of

_encode = msgspec.json.Encoder().encode
_MAX_RANK = 32
_UNNAMED = "text"


@dataclass(slots=True)
class PredictCall(KServeCall):
    """A request, and in which form it came."""

    by_rows: bool = False


class PredictServerDialect(KServeServerDialect):
    """TensorFlow Serving's wire, for clients of ours."""

    routes = {
        ("POST", "/v1/models/{model}:predict"): "embedding",
        ("POST", "/v1/models/{model}/versions/{version}:predict"): "embedding",
        ("GET", "/v1/config"): "models",
    }
    pages = frozenset((("GET", "/v1/models/{model}"), ("GET", "/v1/models/{model}/metadata")))

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        wire = asked_json(content)
        rows = wire.get("instances")
        by_rows = rows is not None
        columns = _columns(rows) if by_rows else wire.get("inputs")
        if columns is None or (type(columns) is dict and not columns):
            raise InvalidRequest("expected instances, a list, or inputs, a list or an object of them")
        if type(columns) is not dict or set(columns) == {"b64"}:
            columns = {_UNNAMED: columns}
        tensors = [tensor(_read(value), name, f"inputs.{name}") for name, value in columns.items()]
        name = wire.get("signature_name")
        parameters = {"signature_name": name} if type(name) is str and name != "serving_default" else None
        found = client_call(parts["model"], tensors, [], headers, version=parts.get("version"), parameters=parameters)
        return PredictCall(found.task, found.body, False, found.model, found.key, by_rows=by_rows)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        columns = {each.name: nested(each) for each in reply_tensors(call, body)}
        only = next(iter(columns.values())) if len(columns) == 1 else None
        if isinstance(call, PredictCall) and call.by_rows:
            return _encode({"predictions": rows_of(columns, "outputs") if only is None else only})
        return _encode({"outputs": columns if only is None else only})

    def models(self, names: list[str]) -> bytes:
        return _encode({name: _status() for name in names})

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """A model's status and its metadata."""
        model = parts["model"]
        if model not in names:
            return 404, _encode({"error": "Model with requested name is not found"})
        if not path.endswith("/metadata"):
            return 200, _encode(_status())
        sides = {
            side: {
                each["name"]: {
                    "dtype": "DT_STRING" if each["datatype"] == "BYTES" else "DT_FLOAT",
                    "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in each["shape"]]},
                    "name": each["name"],
                }
                for each in METADATA[side]
            }
            for side in ("inputs", "outputs")
        }
        signature = {"serving_default": {**sides, "method_name": "tensorflow/serving/predict"}}
        return 200, _encode(
            {"model_spec": {"name": model}, "metadata": {"signature_def": {"signature_def": signature}}}
        )


def _columns(rows: Any) -> Any:
    """Rows of named values as columns; rows of one value as the values. Raises InvalidRequest."""
    if type(rows) is not list or not rows:
        raise InvalidRequest("body.instances: expected a list that is not empty")
    named = [type(row) is dict and set(row) != {"b64"} for row in rows]
    if not any(named):
        return rows
    if not all(named) or any(row.keys() != rows[0].keys() for row in rows):
        raise InvalidRequest("body.instances: the rows name different tensors")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _read(value: Any, depth: int = 0) -> Any:
    """A column, with bytes as `{"b64": …}` at any depth. Raises InvalidRequest."""
    if depth > _MAX_RANK:
        raise InvalidRequest(f"a tensor has more than {_MAX_RANK} dimensions")
    if type(value) is dict and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"b64: {error}") from error
    return [_read(each, depth + 1) for each in value] if type(value) is list else value


def _status() -> dict[str, Any]:
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": "OK"}}
    return {"model_version_status": [state]}
