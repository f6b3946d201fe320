"""The KServe v2 wire (Open Inference Protocol), as MLServer, Triton, OVMS and KServe's own runtimes speak it.

`embedding`: texts go into one tensor of BYTES, the vectors come out of one of floats. `tensors`: whatever the model
takes and gives. Sources: KServe, "Open Inference Protocol (V2)" and "Binary Tensor Data Extension"; OVMS, "KServe
compatible RESTful API".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import HttpDialect, unstreamable
from engine.dialects.common.boundary import reads_reply, writes_request
from engine.dialects.common.error_body import is_error, request_id
from engine.dialects.common.json_body import lenient, malformed, names
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.kserve import model_info
from engine.dialects.kserve.reply import canonical
from engine.dialects.kserve.request import TASKS, ask
from engine.dialects.kserve.tensors import read, speaks_json, split, write
from engine.dialects.openai.errors import typed_error

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class KServeDialect(HttpDialect):
    """The KServe v2 wire below the server's address; the paths begin with /v2."""

    tasks = TASKS
    accept = "application/json, application/octet-stream"
    stream_kind = None
    typed_error = typed_error

    @writes_request
    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if stream:
            raise unstreamable(task)
        unsupported = Unsupported("the KServe wire", drop_unsupported)
        asked = ask(task, body, unsupported)
        message: dict[str, Any] = {}
        if asked.outputs:
            message["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in asked.outputs]
        else:
            # A server without the extension does not know the parameter and answers in JSON.
            asked.parameters = {**asked.parameters, "binary_data_output": True}
        if asked.parameters:
            message["parameters"] = asked.parameters
        try:
            content, headers = write(message, "inputs", asked.inputs, binary=not speaks_json(asked.inputs))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidRequest(f"body.inputs: {error}") from error
        version = f"/versions/{segment(asked.version)}" if asked.version else ""
        return WireCall("POST", f"{_model(model)}{version}/infer", content, headers, unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        try:
            body, tail = split(headers, content)
            if type(body) is not dict or is_error(body):
                raise self.error(status, headers, content)
            reply = canonical(task, body.get("model_name") or "", read(body.get("outputs"), tail))
        except (ValueError, RecursionError) as error:
            raise malformed(f"not a reply of the KServe wire ({error})", headers, content) from error
        return Reply(reply, None, request_id(headers) or body.get("id"))

    def probe(self) -> WireCall:
        """The list of models: an extension that Triton and MLServer have, and others answer with 404."""
        return WireCall("POST", "/v2/repository/index", b"{}")

    def models(self, content: bytes) -> list[str]:
        return names(lenient(content), "name")

    def questions(self, model: str) -> list[WireCall]:
        """The model's metadata and readiness, the server's metadata, and OVMS's configuration."""
        path = _model(model)
        return [WireCall("GET", where, b"") for where in (path, f"{path}/ready", "/v2", "/v1/config")]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        return model_info.server_info(
            [(each.status, lenient(each.content) if each.status == 200 else None) for each in answers]
        )


def segment(name: str) -> str:
    """A name as one segment of a path (RFC 3986, section 2.1)."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in name.encode())


def _model(name: str) -> str:
    return f"/v2/models/{segment(name)}"
