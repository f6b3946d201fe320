"""Text Generation Inference: completions on its own wire, chats on its OpenAI path.

Source: the server's OpenAPI document (huggingface.github.io/text-generation-inference) and its router (router/src).
`provider.base_url` is the server's root. The hosted router has no such root: it speaks the OpenAI wire alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InvalidRequest, Malformed
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, StreamDecoder, WireCall
from engine.dialects.common.boundary import reads_reply, writes_request
from engine.dialects.common.error_body import is_error, request_id
from engine.dialects.common.json_body import lenient, names, reply_json, written
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.tgi import reply as tgi_reply
from engine.dialects.tgi import request
from engine.dialects.tgi.hugging_face import HuggingFaceDialect
from engine.dialects.tgi.stream import TgiChatDecoder, TgiStreamDecoder
from engine.schemas.provider import StreamEnd


class TgiDialect(HuggingFaceDialect):
    """Text Generation Inference."""

    tasks = frozenset(("chat", "completion"))
    stream_end: StreamEnd = "finish"
    stream_usage = True

    @writes_request
    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        unsupported = Unsupported("Text Generation Inference", drop_unsupported)
        if task == "chat":
            wire = request.chat(body, unsupported)
            self._openai.stream_usage = self.stream_usage
            call = self._openai.encode(task, wire, model=model, stream=stream)
            call.path, call.warnings = "/v1" + call.path, unsupported.warnings
            return call
        if task != "completion":
            raise InvalidRequest(f"task: {task!r} is not on TGI's wire; one of: chat, completion")
        wire = request.completion(body, stream, unsupported)
        return WireCall(
            "POST", "/generate_stream" if stream else "/generate", written(wire), warnings=unsupported.warnings
        )

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        if task == "chat":
            reply = self._openai.decode(task, status, headers, content)
            tgi_reply.mend_chat(reply.body, "message")
            return reply
        body = reply_json(headers, content)
        if is_error(body):
            raise self.error(status, headers, content)
        try:
            reply = tgi_reply.whole(body, headers, content, self._wall)
        except Malformed as error:
            error.status, error.provider_request_id = status, request_id(headers)
            raise
        reply.provider_request_id = request_id(headers)
        return reply

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        if task == "chat":
            return TgiChatDecoder(self._wall, show_usage=show_usage, end=self.stream_end)
        return TgiStreamDecoder(self._wall, show_usage=show_usage)

    def models(self, content: bytes) -> list[str]:
        """The server's one model."""
        return names([lenient(content)], "model_id")

    def questions(self, model: str) -> list[WireCall]:
        """Its limits, its health, and how busy it is."""
        return [WireCall("GET", path, b"") for path in ("/info", "/health", "/metrics")]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        return tgi_reply.server_info(answers)
