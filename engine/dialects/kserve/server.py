"""The KServe v2 wire, as a server speaks it: a tensor of texts is embedded, other tensors are task `tensors`.

Source: KServe, "Open Inference Protocol (V2)" and "Binary Tensor Data Extension"; Triton, "Model Repository Extension".
Requests may hold their tensors as bytes; replies are JSON, which the extension leaves to the server, unless they hold
what JSON can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import retry_after
from engine.dialects.kserve.server_request import METADATA, SERVER, KServeCall, client_call, reply_tensors
from engine.dialects.kserve.tensors import read, speaks_json, split, write
from engine.dialects.server import ClientCall, StreamEncoder

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


class KServeServerDialect:
    """The KServe v2 wire, for clients of ours."""

    routes = {
        ("POST", f"{_MODEL}/infer"): "embedding",
        ("POST", f"{_VERSION}/infer"): "embedding",
        ("POST", "/v2/repository/index"): "models",
    }
    pages = frozenset(
        ("GET", path)
        for path in (
            "/v2", "/v2/health/live", "/v2/health/ready", _MODEL, _VERSION, f"{_MODEL}/ready", f"{_VERSION}/ready",
        )
    )  # fmt: skip
    stream_type = "application/json"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        try:
            message, tail = split(headers, content)
            if type(message) is not dict:
                raise ValueError("the body is not a JSON object")
            tensors = read(message.get("inputs"), tail)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"inputs: {error}") from error
        parameters = message.get("parameters")
        return client_call(
            parts["model"],
            tensors,
            _outputs(message.get("outputs")),
            headers,
            call_id=message.get("id"),
            version=parts.get("version"),
            parameters=_own(parameters) if type(parameters) is dict else None,
        )

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        message: dict[str, Any] = {"model_name": call.model or body.get("model") or ""}
        if isinstance(call, KServeCall) and call.id is not None:
            message["id"] = call.id
        tensors = reply_tensors(call, body)
        if not speaks_json(tensors):
            raise InvalidRequest(
                "outputs: JSON has no way to write these tensors. Next: request others, or use this server over gRPC"
            )
        return write(message, "outputs", tensors, binary=False)[0]

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        raise InvalidRequest(f"task: an answer to {call.task} can't be streamed")

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        return error.status_code, retry_after(error), msgspec.json.encode({"error": error.message})

    def models(self, names: list[str]) -> bytes:
        return msgspec.json.encode([{"name": name, "state": "READY", "reason": ""} for name in names])

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """The server's metadata, its health, and each model's metadata and readiness."""
        model = parts.get("model")
        if model is not None and model not in names:
            return 404, msgspec.json.encode({"error": f"Model {model} not found"})
        if path.endswith("/ready"):
            return 200, msgspec.json.encode({"ready": True} if model is None else {"name": model, "ready": True})
        if path.endswith("/live"):
            return 200, msgspec.json.encode({"live": True})
        return 200, msgspec.json.encode(SERVER if model is None else {"name": model, **METADATA})


def _outputs(outputs: Any) -> list[str]:
    """The outputs that the client names, if any."""
    if outputs is None:
        return []
    if type(outputs) is not list or not all(type(each) is dict and type(each.get("name")) is str for each in outputs):
        raise InvalidRequest("outputs: expected a list of objects, each with the name of a tensor")
    return [each["name"] for each in outputs]


def _own(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters without those of the binary extension."""
    return {name: value for name, value in parameters.items() if not name.startswith("binary_data")}
