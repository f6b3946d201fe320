"""The KServe v2 wire, as a server speaks it, for embeddings: texts in one tensor of BYTES, vectors in one of FP32.

Source: KServe, "Open Inference Protocol (V2)" and "Binary Tensor Data Extension"; Triton, "Model Repository Extension".
Requests may hold their tensor as bytes; replies are JSON, which the extension leaves to the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.dialects import ClientCall, StreamEncoder
from engine.dialects.kserve_ask import INPUT
from engine.dialects.kserve_tensors import Tensor, read, split, write
from engine.dialects.openai_server import unpacked
from engine.errors import InferenceError, InvalidRequest

_OUTPUT = "embedding"
"""The tensor of the vectors, where the client names none."""


@dataclass(slots=True)
class KServeCall(ClientCall):
    """A request, and what its reply repeats."""

    id: str | None = None
    output: str = _OUTPUT


class KServeServerDialect:
    """The KServe v2 wire, for clients of ours."""

    routes = {
        ("POST", "/v2/models/{model}/infer"): "embedding",
        ("POST", "/v2/models/{model}/versions/{version}/infer"): "embedding",
        ("POST", "/v2/repository/index"): "models",
    }
    stream_type = "application/json"

    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        try:
            message, tail = split(headers, content)
            if type(message) is not dict:
                raise ValueError("the body is not a JSON object")
            tensors = read(message.get("inputs"), tail)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"inputs: {error}") from error
        body: dict[str, Any] = {"model": parts["model"], "input": _texts(tensors)}
        if tensors[0].name != INPUT:
            body["input_tensor"] = tensors[0].name
        output = _output(message.get("outputs"))
        if output is not None:
            body["output_tensor"] = output
        asked = message.get("id")
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return KServeCall(
            "embedding",
            body,
            False,
            parts["model"],
            key.strip() or None if scheme.lower() == "bearer" else None,
            id=asked if type(asked) is str else None,
            output=output or _OUTPUT,
        )

    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        rows = [unpacked(each) if type(each) is str else each for each in (item["embedding"] for item in body["data"])]
        flat = [number for row in rows for number in row]
        message: dict[str, Any] = {"model_name": call.model or body.get("model") or ""}
        output = _OUTPUT
        if isinstance(call, KServeCall):
            output = call.output
            if call.id is not None:
                message["id"] = call.id
        return write(message, "outputs", [Tensor(output, "FP32", [len(rows), len(rows[0])], flat)], binary=False)[0]

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        raise InvalidRequest(f"task: an answer to {call.task} can't be streamed")

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        wait_s = error.retry_after_s
        headers = {} if wait_s is None else {"retry-after": str(math.ceil(wait_s))}
        return error.status_code, headers, msgspec.json.encode({"error": error.message})

    def models(self, names: list[str]) -> bytes:
        return msgspec.json.encode([{"name": name, "state": "READY", "reason": ""} for name in names])


def _texts(tensors: list[Tensor]) -> list[str]:
    if len(tensors) != 1 or tensors[0].datatype != "BYTES" or math.prod(tensors[0].shape[1:]) != 1:
        raise InvalidRequest("inputs: expected one tensor of BYTES with a text in each row")
    if not tensors[0].data:
        raise InvalidRequest("inputs: the tensor is empty. Next: put a text into it")
    try:
        return [text.decode() for text in tensors[0].data]
    except UnicodeDecodeError as error:
        raise InvalidRequest("inputs: a text is not UTF-8") from error


def _output(outputs: Any) -> str | None:
    """The output that the client names, if any."""
    if outputs is None or outputs == []:
        return None
    if type(outputs) is not list or len(outputs) != 1 or type(outputs[0]) is not dict:
        raise InvalidRequest("outputs: expected no more than one, for the vectors")
    name = outputs[0].get("name")
    if type(name) is not str:
        raise InvalidRequest("outputs[0].name: expected the name of a tensor")
    return name
