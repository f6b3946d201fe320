"""The KServe v2 wire over gRPC, as a server speaks it. A route's path is the method's.

Source: as in `kserve_grpc_messages`. An error's status and headers are HTTP's, and `grpc-status` names the code that
means the same; its body is the code's message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.errors import InferenceError, InvalidRequest
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.kserve.grpc_client import SERVICE
from engine.dialects.kserve.grpc_messages import (
    read_infer,
    read_name,
    write_flag,
    write_index,
    write_infer,
    write_metadata,
    write_server,
)
from engine.dialects.kserve.server import KServeServerDialect
from engine.dialects.kserve.server_request import METADATA, SERVER, KServeCall, client_call, reply_tensors
from engine.dialects.server import ClientCall

_CODES = {
    "throttled": "RESOURCE_EXHAUSTED", "quota_exhausted": "RESOURCE_EXHAUSTED", "auth": "UNAUTHENTICATED",
    "invalid_request": "INVALID_ARGUMENT", "too_long": "INVALID_ARGUMENT", "content_filtered": "INVALID_ARGUMENT",
    "overloaded": "UNAVAILABLE", "circuit_open": "UNAVAILABLE", "queue_full": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED", "deadline": "DEADLINE_EXCEEDED", "cancelled": "CANCELLED",
}  # fmt: skip
"""By the word of the failure vocabulary; the others are INTERNAL."""


class KServeGrpcServerDialect(KServeServerDialect):
    """The KServe v2 wire over gRPC, for clients of ours."""

    routes = {("POST", f"{SERVICE}/ModelInfer"): "embedding", ("POST", f"{SERVICE}/RepositoryIndex"): "models"}
    pages = frozenset(
        ("POST", f"{SERVICE}/{method}")
        for method in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
    )
    stream_type = "application/grpc"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        try:
            found = read_infer(content, reply=False)
        except ValueError as error:
            raise InvalidRequest(f"inputs: {error}") from error
        return client_call(
            found["model"],
            found["tensors"],
            found["outputs"],
            headers,
            call_id=found["id"],
            version=found["version"],
            parameters=found["parameters"],
        )

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        call_id = call.id if isinstance(call, KServeCall) else None
        model = call.model or body.get("model") or ""
        return write_infer(model, None, call_id, {}, reply_tensors(call, body), reply=True)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        status, headers, _ = super().refusal(error)
        return status, {**headers, "grpc-status": _CODES.get(error.kind, "INTERNAL")}, error.message.encode()

    def models(self, names: list[str]) -> bytes:
        return write_index(names)

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """The server's metadata, its health, and each model's metadata and readiness."""
        method = path.rpartition("/")[2]
        if method in ("ServerLive", "ServerReady"):
            return 200, write_flag(True)
        if method == "ServerMetadata":
            return 200, write_server(SERVER["name"], SERVER["version"])
        try:
            model = read_name(content)
        except ValueError:
            return 400, b"the request can't be read"
        if model not in names:
            return 404, f"Model {model} not found".encode()
        return 200, write_flag(True) if method == "ModelReady" else write_metadata(model, METADATA)
