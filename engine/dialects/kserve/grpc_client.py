"""The KServe v2 wire over gRPC: the messages of `inference.GRPCInferenceService`, for `provider.transport.kind=grpc`.

A call's path is the method's; the transport gives a failed call's status as the HTTP status that means the same, and
its words as a JSON error. `ModelStreamInfer` is not used: none of the tasks that the wire carries has an answer in
pieces. Sources as in `kserve_grpc_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import unstreamable
from engine.dialects.common.boundary import reads_reply
from engine.dialects.common.error_body import request_id
from engine.dialects.common.json_body import malformed
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.kserve import model_info
from engine.dialects.kserve.client import KServeDialect
from engine.dialects.kserve.grpc_messages import (
    read_flag,
    read_index,
    read_infer,
    read_metadata,
    read_server,
    write_infer,
    write_name,
)
from engine.dialects.kserve.reply import canonical
from engine.dialects.kserve.request import ask

SERVICE = "/inference.GRPCInferenceService"


class KServeGrpcDialect(KServeDialect):
    """The KServe v2 wire over gRPC."""

    def constant_headers(self, stream: bool) -> dict[str, str]:
        return {}  # gRPC has its own, and no room for others' names

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if stream:
            raise unstreamable(task)
        unsupported = Unsupported("the KServe wire", drop_unsupported)
        asked = ask(task, body, unsupported)
        try:
            content = write_infer(model, asked.version, None, asked.parameters, asked.inputs, asked.outputs)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"body.inputs: {error}") from error
        return WireCall("POST", f"{SERVICE}/ModelInfer", content, warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        try:
            found = read_infer(content, reply=True)
            body = canonical(task, found["model"], found["tensors"])
        except ValueError as error:
            raise malformed(f"not a ModelInferResponse ({error})", headers, content) from error
        return Reply(body, None, request_id(headers) or found["id"] or None)

    def probe(self) -> WireCall:
        """The list of models, which Triton and MLServer have; others say that they have no such method."""
        return WireCall("POST", f"{SERVICE}/RepositoryIndex", b"")

    def models(self, content: bytes) -> list[str]:
        try:
            return read_index(content)
        except ValueError:
            return []

    def questions(self, model: str) -> list[WireCall]:
        """The model's metadata and readiness, and the server's metadata."""
        named = write_name(model)
        return [
            WireCall("POST", f"{SERVICE}/ModelMetadata", named),
            WireCall("POST", f"{SERVICE}/ModelReady", named),
            WireCall("POST", f"{SERVICE}/ServerMetadata", b""),
        ]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        readers = (read_metadata, lambda content: {"ready": read_flag(content)}, read_server)
        return model_info.server_info([_read(answer, reader) for answer, reader in zip(answers, readers, strict=True)])


def _read(answer: DiscoveryReply, reader: Any) -> tuple[int, Any]:
    try:
        return answer.status, reader(answer.content) if answer.status == 200 else None
    except ValueError:
        return answer.status, None
