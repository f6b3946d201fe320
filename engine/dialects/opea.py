"""OPEA's wire: microservices in OpenAI's form, a reranker of its own form, and megaservices such as ChatQnA.

The model's id says which: `chatqna` and the other names of megaservices go to the path of that name, any other to the
microservice of a model. Sources: OPEA's GenAIComps 1.5, comps/cores/mega/constants.py (MegaServiceEndpoint) and
http_service.py, comps/rerankings, comps/llms/src/text-generation; GenAIExamples, ChatQnA and CodeGen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.dialects import Reply, StreamDecoder, WireCall
from engine.dialects.losses import Losses
from engine.dialects.opea_request import megaservice, microservice, reranking
from engine.dialects.opea_stream import OpeaStreamDecoder
from engine.dialects.openai import OpenAIDialect
from engine.dialects.openai_errors import excerpt, is_error, request_id
from engine.errors import InvalidRequest, Malformed, ServerFailed

MEGASERVICES = frozenset(("chatqna", "codegen", "graphrag", "searchqna"))
"""Those that are asked with messages alone; others want files, images or sound."""
_FAILED = "Response Error"
"""CodeGen's whole answer where its model failed."""


class OpeaDialect(OpenAIDialect):
    """OPEA's wire, below /v1."""

    tasks = frozenset(("chat", "embedding", "rerank"))

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task not in self.tasks:
            raise InvalidRequest(f"task: {task!r} is not on OPEA's wire; one of: {', '.join(sorted(self.tasks))}")
        losses = Losses("OPEA's service", drop_unsupported)
        if task == "chat" and model in MEGASERVICES:
            call = _call(f"/{model}", megaservice(body, stream, losses))
        elif task == "chat":
            call = super().encode(task, microservice(body, losses), model=model, stream=stream)
        elif task == "embedding" or stream:
            call = super().encode(task, body, model=model, stream=stream)
        else:
            call = _call("/reranking", reranking(body, losses))
        call.warnings += losses.warnings
        return call

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if task == "rerank":
            return self._ranked(status, headers, content)
        reply = super().decode(task, status, headers, content)
        usage = reply.body.get("usage")
        if type(usage) is dict and not any(usage.values()):
            # A megaservice counts nothing and says 0; what is not known is not nothing.
            del reply.body["usage"]
            reply.usage = None
        if task == "chat" and reply.body["choices"][0]["message"].get("content") == _FAILED:
            raise ServerFailed(
                f"HTTP 200: the megaservice answered {_FAILED!r}: a service that it calls has failed",
                status=status,
                provider_request_id=reply.provider_request_id,
            )
        return reply

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        return OpeaStreamDecoder(self._wall, show_usage=show_usage)

    def probe(self) -> WireCall:
        return WireCall("GET", "/health_check", b"")

    def models(self, content: bytes) -> list[str] | None:
        """None for a service that is healthy: it says what it is, not which model it has."""
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        return None if type(body) is dict and "Service Title" in body else []

    def _ranked(self, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """The results name their documents by the text alone, best first."""
        if status != 200:
            raise self.error(status, headers, content)
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            body = None
        if is_error(body):
            raise self.error(status, headers, content)
        found = body.get("reranked_docs") if type(body) is dict else None
        if type(found) is not list or not found or not all(map(_is_ranked, found)):
            raise Malformed(
                f"HTTP 200: the reply has no reranked_docs with text and score: {excerpt(content)}",
                status=status,
                provider_request_id=request_id(headers),
            )
        results = [{"relevance_score": each["score"], "document": {"text": each["text"]}} for each in found]
        return Reply({"object": "list", "results": results}, None, request_id(headers))


def _call(path: str, body: dict[str, Any]) -> WireCall:
    try:
        return WireCall("POST", path, msgspec.json.encode(body))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"body: can't be written as JSON: {error}") from error


def _is_ranked(entry: Any) -> bool:
    return type(entry) is dict and type(entry.get("text")) is str and type(entry.get("score")) in (int, float)
