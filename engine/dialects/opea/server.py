"""OPEA's wire, as services speak it: the megaservices that are chats, and the microservices.

Its microservices in OpenAI's form are the OpenAI dialect's. Sources: as in `opea`, `opea_services` and `opea_stream`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.media_access import Media
from engine.core.stream import Chunk
from engine.dialects.codecs.multipart import read_form
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json
from engine.dialects.common.server import client_key
from engine.dialects.opea.client import MEGASERVICES
from engine.dialects.opea.services import TRANSLATORS
from engine.dialects.openai.server import OpenAIServerDialect
from engine.dialects.server import ClientCall, StreamEncoder

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_OWN = {
    **{f"/v1/{name}": "chat" for name in MEGASERVICES},
    **{f"/v1/{name}": "translation" for name in TRANSLATORS},
    "/v1/reranking": "rerank",
    "/v1/retrieval": "retrieval",
    "/v1/guardrails": "moderation",
    "/v1/dataprep/ingest": "dataprep",
    "/v1/dataprep/get": "dataprep",
    "/v1/dataprep/delete": "dataprep",
}
_OPENAI = {"/v1/chat/completions": "chat", "/v1/embeddings": "embedding"}
_TITLE = "engine"


class OpeaServerDialect(OpenAIServerDialect):
    """OPEA's wire, for clients of ours."""

    routes = {("POST", path): task for path, task in (_OWN | _OPENAI).items()} | {("GET", "/v1/health_check"): "models"}

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        path = path.partition("?")[0]
        task = _OWN.get(path)
        if task is None:
            return super().read(path, parts, headers, content)
        service = path.removeprefix("/v1/")
        stream, model = False, None
        if service == "dataprep/ingest":
            body = _ingested(content, headers.get("content-type", ""))
        elif task == "dataprep":
            body = _managed(service, content)
        else:
            wire = asked_json(content)
            model = service if task in ("chat", "translation") else None
            # Left out, it means true, except for questions about images.
            stream = task == "chat" and wire.pop("stream", service != "visualqna") is not False
            body = _READS[task](wire, service)
        return ClientCall(task, body, stream, model, client_key(headers))

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        if call.task == "rerank":
            documents = call.body["documents"]
            found = [{"text": documents[each["index"]], "score": each["relevance_score"]} for each in body["results"]]
            return _encode({"reranked_docs": found})
        if call.task == "retrieval":
            return _encode({"retrieved_docs": [{"metadata": None, **each} for each in body["outputs"]]})
        if call.task == "dataprep":
            return _encode(body["outputs"])
        if call.task == "moderation":
            return _encode(_guarded(call, body["results"][0]))
        if call.task == "translation":
            message = {"role": "assistant", "content": body["outputs"][0]["translation_text"]}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return _encode({"object": "chat.completion", "model": call.model, "choices": [choice]})
        return super().reply(call, body)

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        return OpeaStreamEncoder() if call.model in MEGASERVICES else super().stream_encoder(call)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        """In FastAPI's form, which OPEA's services are made with."""
        status, headers, _ = super().refusal(error)
        return status, headers, _encode({"detail": error.message})

    def models(self, names: list[str]) -> bytes:
        """The service's health: it says what it is, not which model it has."""
        return _encode({"Service Title": _TITLE, "Service Description": "OPEA Microservice Infrastructure"})


class OpeaStreamEncoder:
    """Pieces of text in Python's notation for bytes; `[DONE]` ends them."""

    __slots__ = ()

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        choices = chunk.body.get("choices")
        text = (choices[0].get("delta") or {}).get("content") if choices else None
        return b"data: %s\n\n" % repr(text.encode()).encode() if text else b""

    @writes
    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def failed(self, error: InferenceError) -> bytes:
        return b"data: " + _encode({"error": error.message}) + b"\n\n"


def _chat(wire: dict[str, Any], service: str) -> dict[str, Any]:
    messages = wire.pop("messages", None)
    if type(messages) is str:
        messages = [{"role": "user", "content": messages}]
    if type(messages) is not list or not messages:
        raise InvalidRequest("body.messages: expected a text or a list of messages")
    wire.pop("type", None)
    return {"messages": messages, **wire, "model": service}


def _translation(wire: dict[str, Any], service: str) -> dict[str, Any]:
    fields = [wire.get(name) for name in (TRANSLATORS[service], "language_from", "language_to")]
    if not all(type(each) is str for each in fields):
        raise InvalidRequest(f"expected {TRANSLATORS[service]}, language_from and language_to, all of them texts")
    text, source, target = fields
    return {"inputs": text, "parameters": {"src_lang": source, "tgt_lang": target}, "model": service}


def _rerank(wire: dict[str, Any], service: str) -> dict[str, Any]:
    query, found = wire.get("input"), wire.get("retrieved_docs")
    if type(query) is not str or type(found) is not list or not found:
        raise InvalidRequest("expected input, a text, and retrieved_docs, a list")
    documents = [each.get("text") if type(each) is dict else each for each in found]
    if not all(type(each) is str for each in documents):
        raise InvalidRequest("body.retrieved_docs: each needs a text")
    top_n = wire.get("top_n", 1)
    return {"query": query, "documents": documents, "top_n": top_n if type(top_n) is int and top_n > 0 else 1}


def _retrieval(wire: dict[str, Any], service: str) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    text = wire.pop("input", None) or wire.pop("text", None)
    if text is not None:
        inputs["text"] = text
    embedding = wire.pop("embedding", None)
    if type(embedding) is dict:  # an embedding service's whole reply
        data = embedding.get("data")
        first = data[0] if type(data) is list and data else None
        embedding = first.get("embedding") if type(first) is dict else None
    if embedding is not None:
        inputs["embedding"] = embedding
    if not inputs:
        raise InvalidRequest("expected input, a text, or embedding, a list of numbers")
    wire.pop("request_type", None)
    return {"inputs": inputs, **({"parameters": wire} if wire else {})}


def _moderation(wire: dict[str, Any], service: str) -> dict[str, Any]:
    if type(wire.get("text")) is not str:
        raise InvalidRequest("body.text: expected a text")
    return {"input": wire["text"]}


_READS = {
    "chat": _chat,
    "translation": _translation,
    "rerank": _rerank,
    "retrieval": _retrieval,
    "moderation": _moderation,
}


def _managed(service: str, content: bytes) -> dict[str, Any]:
    """A call that lists or deletes what was ingested."""
    operation = service.rpartition("/")[2]
    wire = asked_json(content) if content.strip() else {}
    if operation == "get":
        return {"parameters": {"operation": "get"}}
    if type(wire.get("file_path")) is not str:
        raise InvalidRequest("body.file_path: expected the id of a file")
    return {"inputs": {"file_path": wire["file_path"]}, "parameters": {"operation": "delete"}}


def _ingested(content: bytes, kind: str) -> dict[str, Any]:
    """A form with files or addresses."""
    inputs: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for name, value in read_form(content, kind):
        if name == "files":
            if not isinstance(value, Media):
                raise InvalidRequest("body.files: expected a file")
            inputs.setdefault("files", []).append(value)
        elif isinstance(value, Media):
            raise InvalidRequest(f"body.{name}: expected a text, not a file")
        elif name == "link_list":
            inputs["links"] = _scalar(value)
            if type(inputs["links"]) is not list:
                raise InvalidRequest("body.link_list: expected a JSON list of addresses")
        else:
            parameters[name] = _scalar(value)
    if not inputs:
        raise InvalidRequest("Must provide either a file or a string list.")
    return {"inputs": inputs, **({"parameters": parameters} if parameters else {})}


def _scalar(text: str) -> Any:
    """A field of a form as the value that it is written for: a number, a truth value, a list, or the text itself."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text


def _guarded(call: ClientCall, result: dict[str, Any]) -> dict[str, Any]:
    if not result.get("flagged"):
        return {"text": call.body["input"], "downstream_black_list": []}
    broken = [name for name, said in (result.get("categories") or {}).items() if said]
    text = f"Violated policies: {', '.join(broken) or 'unsafe'}, please check your input."
    return {"text": text, "downstream_black_list": [".*"]}
