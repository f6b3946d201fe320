"""OPEA's wire: microservices in OpenAI's form and in forms of their own, and megaservices such as ChatQnA.

The model's id says which: `chatqna` and the other names of megaservices go to the path of that name, any other to the
microservice of a model. Sources: OPEA's GenAIComps 1.5, comps/cores/mega/constants.py (MegaServiceEndpoint) and
http_service.py, comps/rerankings, comps/llms/src/text-generation; GenAIExamples, ChatQnA and CodeGen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.errors import InvalidRequest, ServerFailed
from engine.dialects.client import Reply, StreamDecoder, WireCall
from engine.dialects.common.base import unstreamable
from engine.dialects.common.boundary import reads_reply, writes_request
from engine.dialects.common.error_body import is_error, request_id
from engine.dialects.common.json_body import lenient, malformed, written
from engine.dialects.common.unsupported import Unsupported
from engine.dialects.opea import services
from engine.dialects.opea.request import megaservice, microservice, reranking
from engine.dialects.opea.stream import OpeaStreamDecoder
from engine.dialects.openai.client import OpenAIDialect

MEGASERVICES = frozenset(("chatqna", "codegen", "docsum", "graphrag", "hybridrag", "searchqna", "visualqna"))
"""Those that are chats: called with messages, and `visualqna` with an image."""
_FAILED = "Response Error"
"""CodeGen's whole answer where its model failed."""


class OpeaDialect(OpenAIDialect):
    """OPEA's wire, below /v1."""

    tasks = frozenset(("chat", "embedding", "rerank")) | services.TASKS
    list_path = "/health_check"

    @writes_request
    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        if task not in self.tasks:
            raise InvalidRequest(f"task: {task!r} is not on OPEA's wire; one of: {', '.join(sorted(self.tasks))}")
        if stream and task != "chat":
            raise unstreamable(task)
        unsupported = Unsupported("OPEA's service", drop_unsupported)
        if task == "chat" and model in MEGASERVICES:
            call = WireCall("POST", f"/{model}", written(megaservice(model, body, stream, unsupported)))
        elif task == "chat":
            call = super().encode(task, microservice(body, unsupported), model=model, stream=stream)
        elif task == "embedding":
            call = super().encode(task, body, model=model, stream=stream)
        elif task == "rerank":
            call = WireCall("POST", "/reranking", written(reranking(body, unsupported)))
        else:
            call = services.write(task, body, model, unsupported)
        call.warnings += unsupported.warnings
        return call

    @reads_reply
    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if task == "rerank":
            return self._ranked(status, headers, content)
        if task in services.TASKS:
            return self._served(task, status, headers, content)
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
        return OpeaStreamDecoder(self._wall, show_usage=show_usage, end=self.stream_end)

    def models(self, content: bytes) -> list[str] | None:
        """None for a service that is healthy: it says what it is, not which model it has."""
        body = lenient(content)
        return None if type(body) is dict and "Service Title" in body else []

    def _ranked(self, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """The results name their documents by the text alone, best first."""
        body = self._json(status, headers, content)
        found = body.get("reranked_docs") if type(body) is dict else None
        if type(found) is not list or not found or not all(map(_is_ranked, found)):
            raise malformed("the reply has no reranked_docs with text and score", headers, content)
        results = [{"relevance_score": each["score"], "document": {"text": each["text"]}} for each in found]
        return Reply({"object": "list", "results": results}, None, request_id(headers))

    def _served(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status == 200 and content.lstrip()[:5] == b"data:":
            # A translator streams its answer whenever its model does, requested or not.
            body: Any = {"choices": [{"message": {"content": self._gathered(content)}}]}
        else:
            body = self._json(status, headers, content)
        reply = services.canonical(task, body)
        if reply is None:
            raise malformed(f"not a reply to {task}", headers, content)
        return Reply(reply, None, request_id(headers))

    def _json(self, status: int, headers: Mapping[str, str], content: bytes) -> Any:
        if status != 200:
            raise self.error(status, headers, content)
        body = lenient(content)
        if is_error(body):
            raise self.error(status, headers, content)
        return body

    def _gathered(self, content: bytes) -> str:
        """The text of a whole stream. Raises what broke it."""
        decoder = OpeaStreamDecoder(self._wall)
        chunks = decoder.feed(content) + decoder.finish()
        choices = [choice for chunk in chunks for choice in chunk.body["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


def _is_ranked(entry: Any) -> bool:
    return type(entry) is dict and type(entry.get("text")) is str and type(entry.get("score")) in (int, float)
