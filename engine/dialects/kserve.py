"""The KServe v2 wire (Open Inference Protocol), as MLServer, Triton, OVMS and KServe's own runtimes speak it.

Of our tasks it carries `embedding`: texts go into one tensor of BYTES, the vectors come out of one of floats. Sources:
KServe, "Open Inference Protocol (V2)" and "Binary Tensor Data Extension"; OVMS, "KServe compatible RESTful API".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.dialects import Reply, StreamDecoder, WireCall
from engine.dialects.kserve_tensors import FLOATS, Tensor, read, rows, split, write
from engine.dialects.losses import Losses
from engine.dialects.openai_errors import excerpt, is_error, request_id, typed_error
from engine.errors import InferenceError, InvalidRequest, Malformed
from engine.request import RateHints

INPUT = "text"
"""The tensor that takes the texts, where `body.input_tensor` names no other."""
_OUTPUTS = ("sentence_embedding", "embedding", "embeddings", "pooler_output")
"""Which of several outputs holds the vectors, where `body.output_tensor` names none; the first that is there."""
_KNOWN = frozenset(("model", "input", "input_tensor", "output_tensor", "encoding_format", "stream", "stream_options"))

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class KServeDialect:
    """The KServe v2 wire below the server's address; the paths begin with /v2."""

    tasks = frozenset(("embedding",))

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` gives the time now in seconds since the epoch, for retry hints that are dates."""
        self._wall = wall

    def constant_headers(self, stream: bool) -> dict[str, str]:
        return {"content-type": "application/json", "accept": "application/json, application/octet-stream"}

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task not in self.tasks:
            raise InvalidRequest(f"task: {task!r} is not on the KServe wire; one of: {', '.join(self.tasks)}")
        if stream:
            raise InvalidRequest(f"task: an answer to {task} can't be streamed")
        losses = Losses("the KServe wire", drop_unsupported)
        for name, value in body.items():
            if name not in _KNOWN:
                losses.lose_field(name, value)
        texts = _texts(body.get("input"))
        tensor = Tensor(_name(body, "input_tensor", INPUT), "BYTES", [len(texts)], texts)
        # A server without the extension does not know the parameter and answers in JSON.
        wanted: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        output = _name(body, "output_tensor", "")
        if output:
            wanted = {"outputs": [{"name": output, "parameters": {"binary_data": True}}]}
        content, headers = write(wanted, "inputs", [tensor], binary=False)
        return WireCall("POST", f"/v2/models/{_segment(model)}/infer", content, headers, losses.warnings)

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        try:
            body, tail = split(headers, content)
            if type(body) is not dict or is_error(body):
                raise self.error(status, headers, content)
            vectors = rows(_vectors(read(body.get("outputs"), tail)))
            if not vectors or not vectors[0]:
                raise ValueError("the vectors are empty")
        except (ValueError, RecursionError) as error:
            raise Malformed(
                f"HTTP 200: not a reply of the KServe wire ({error}): {excerpt(content)}",
                status=status,
                provider_request_id=request_id(headers),
            ) from error
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        canonical = {"object": "list", "model": body.get("model_name") or "", "data": data}
        return Reply(canonical, None, request_id(headers) or body.get("id"))

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        return False

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        raise InvalidRequest(f"task: an answer to {task} can't be streamed")

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        return typed_error(status, headers, content, self._wall())

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        return None  # the protocol has none

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def probe(self) -> WireCall:
        """The list of models: an extension that Triton and MLServer have, and others answer with 404."""
        return WireCall("POST", "/v2/repository/index", b"{}")

    def models(self, content: bytes) -> list[str]:
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        if type(body) is not list:
            return []
        return [entry["name"] for entry in body if type(entry) is dict and type(entry.get("name")) is str]


def _segment(name: str) -> str:
    """A name as one segment of a path (RFC 3986, section 2.1)."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in name.encode())


def _texts(given: Any) -> list[bytes]:
    texts = [given] if type(given) is str else given
    if type(texts) is not list or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    found = []
    for index, text in enumerate(texts):
        if type(text) is not str:
            raise InvalidRequest(
                f"body.input[{index}]: the KServe wire carries texts, not tokens; give the text itself"
            )
        try:
            found.append(text.encode())
        except UnicodeEncodeError:
            raise InvalidRequest(f"body.input[{index}]: not valid Unicode (half of a UTF-16 pair)") from None
    return found


def _name(body: dict[str, Any], field: str, default: str) -> str:
    name = body.get(field, default)
    if type(name) is not str:
        raise InvalidRequest(f"body.{field}: expected the name of a tensor")
    return name


def _vectors(tensors: list[Tensor]) -> Tensor:
    """The tensor that holds the vectors. Raises InvalidRequest where no other try can find one."""
    found = [tensor for tensor in tensors if tensor.datatype in FLOATS and len(tensor.shape) == 2]
    if len(found) > 1:
        found = [tensor for name in _OUTPUTS for tensor in found if tensor.name == name][:1] or found
    if len(found) != 1:
        shown = ", ".join(f"{tensor.name} {tensor.datatype} {tensor.shape}" for tensor in tensors) or "none"
        raise InvalidRequest(
            "body.output_tensor: name the output that holds the vectors, floats of the shape [texts, dimensions]; "
            f"the model's outputs: {shown}"
        )
    return found[0]
