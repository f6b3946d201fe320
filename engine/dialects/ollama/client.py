"""Ollama's own wire: /api/chat, /api/generate, /api/embed.

Source: Ollama's docs, "API Reference" (docs.ollama.com/api; openapi.yaml in its repository), and its types
(api/types.go). Ollama counts neither cached nor reasoning tokens, sends no limits in its headers and gives no id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.server_info import ServerInfo
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import HttpDialect
from engine.dialects.common.boundary import reads_reply
from engine.dialects.common.error_body import request_id
from engine.dialects.common.json_body import lenient, malformed, names, written
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.ollama import model_info, request
from engine.dialects.ollama import reply as ollama_reply
from engine.dialects.ollama.errors import typed_error
from engine.dialects.ollama.stream import OllamaStreamDecoder

_PATHS = {"chat": "/api/chat", "completion": "/api/generate", "embedding": "/api/embed"}


class OllamaDialect(HttpDialect):
    """Ollama's own wire."""

    tasks = frozenset(_PATHS)
    list_path = "/api/tags"
    stream_kind = "application/x-ndjson"
    typed_error = typed_error

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        path = _PATHS.get(task)
        if path is None:
            raise InvalidRequest(f"task: {task!r} is not on Ollama's wire; one of: {', '.join(_PATHS)}")
        unsupported = Unsupported("Ollama's wire", drop_unsupported)
        if task == "chat":
            wire = request.chat(body, model, stream, unsupported)
        elif task == "completion":
            wire = request.completion(body, model, stream, unsupported)
        elif stream:
            raise InvalidRequest("task: an embedding can't be streamed")
        else:
            wire = request.embedding(body, model, unsupported)
        return WireCall("POST", path, written(wire), warnings=unsupported.warnings)

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        body = self.reply_object(status, headers, content)
        try:
            if task == "embedding":
                reply = ollama_reply.vectors(body, content)
            else:
                reply = ollama_reply.whole(task, body, content, self._wall)
        except InferenceError as error:
            error.status, error.provider_request_id = status, request_id(headers)
            raise
        except (KeyError, TypeError, AttributeError) as error:
            raise malformed("the log probabilities can't be read", headers, content) from error
        reply.provider_request_id = request_id(headers)
        return reply

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> OllamaStreamDecoder:
        return OllamaStreamDecoder(task, self._wall, show_usage=show_usage)

    def models(self, content: bytes) -> list[str]:
        body = lenient(content)
        return names(body.get("models"), "model", "name") if type(body) is dict else []

    def questions(self, model: str) -> list[WireCall]:
        """Returns what the model can do and hold, and the server's version."""
        return [WireCall("POST", "/api/show", written({"model": model})), WireCall("GET", "/api/version", b"")]

    def server_info(self, model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
        return model_info.server_info(model, answers)

    def pull(self, model: str) -> WireCall:
        """The call that gets a model from its library, with its progress as a stream."""
        return WireCall("POST", "/api/pull", written({"model": model}))

    def progress(self) -> model_info.PullDecoder:
        return model_info.PullDecoder()
