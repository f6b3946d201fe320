"""Text Embeddings Inference: embeddings of texts and of their tokens, dense and sparse; rerank; classification;
similarity.

An embedding goes by the server's OpenAI path, which tells its usage and packs vectors, unless the body requests what
only /embed knows: `normalize`, `truncate`, `truncation_direction`, `prompt_name`. Source: the server's OpenAPI document
(huggingface.github.io/text-embeddings-inference) and its router (router/src/http).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import unstreamable
from engine.dialects.common.boundary import reads_reply, writes_request
from engine.dialects.common.error_body import request_id
from engine.dialects.common.json_body import lenient, malformed, names, reply_json, written
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.tei import reply as tei_reply
from engine.dialects.tei.request import WRITES
from engine.dialects.tgi.hugging_face import HuggingFaceDialect


class TeiDialect(HuggingFaceDialect):
    """Text Embeddings Inference."""

    tasks = frozenset(WRITES)
    stream_kind = None

    @writes_request
    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        unsupported = Unsupported("Text Embeddings Inference", drop_unsupported)
        if stream:
            raise unstreamable(task)
        write = WRITES.get(task)
        if write is None:
            raise InvalidRequest(f"task: {task!r} is not on TEI's wire; one of: {', '.join(sorted(WRITES))}")
        path, wire = write(body, model, unsupported)
        return WireCall("POST", path, written(wire), warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        if task == "embedding" and content[:64].lstrip()[:1] == b"{":
            return self._openai.decode(task, status, headers, content)
        body = reply_json(headers, content)
        if type(body) is not list or not body:
            raise self.error(status, headers, content)
        reply = tei_reply.canonical(task, body, headers)
        if reply is None:
            raise malformed(f"not a reply to {task}", headers, content)
        reply.provider_request_id = request_id(headers)
        return reply

    def models(self, content: bytes) -> list[str]:
        """The server's one model, under its name and, where that is another, its id."""
        body = lenient(content)
        found = names([body], "served_model_name") + names([body], "model_id")
        return list(dict.fromkeys(found))

    def questions(self, model: str) -> list[WireCall]:
        return [self.probe()]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        return tei_reply.server_info(answers)
