"""Text Embeddings Inference: embeddings and rerank.

An embedding goes by the server's OpenAI path, which tells its usage and packs vectors, unless the body asks for what
only /embed knows: `normalize`, `truncate`, `truncation_direction`, `prompt_name`. Source: the server's OpenAPI document
(huggingface.github.io/text-embeddings-inference) and its router (router/src/http).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.dialects import Reply, StreamDecoder, WireCall
from engine.dialects.hf_errors import typed_error
from engine.dialects.losses import Losses
from engine.dialects.openai import OpenAIDialect
from engine.dialects.openai_errors import excerpt, request_id
from engine.errors import InferenceError, InvalidRequest, Malformed
from engine.request import RateHints, Usage

_NATIVE = ("normalize", "truncate", "truncation_direction", "prompt_name")
"""What only /embed knows."""
_RERANK = ("raw_scores", "truncate", "truncation_direction")
_COMMON = frozenset(("model", "stream", "stream_options"))
_RANKED = _COMMON | {"query", "documents", "top_n", "return_documents"}
"""The server ranks everything; the cut to `top_n` is made of its reply: engine.tasks.rerank."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_HEADER_TOKENS = "x-compute-tokens"


class TeiDialect:
    """Text Embeddings Inference."""

    tasks = frozenset(("embedding", "rerank"))

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` gives the time now in seconds since the epoch, for retry hints that are dates."""
        self._wall = wall
        self._openai = OpenAIDialect(wall)

    def constant_headers(self, stream: bool) -> dict[str, str]:
        return {"content-type": "application/json", "accept": "application/json"}

    def encode(
        self, task: str, body: dict[str, Any], *, model: str, stream: bool, drop_unsupported: bool = False
    ) -> WireCall:
        losses = Losses("Text Embeddings Inference", drop_unsupported)
        if stream:
            raise InvalidRequest(f"task: an answer to {task} can't be streamed")
        if task == "embedding":
            path, wire = _embedding(body, model, losses)
        elif task == "rerank":
            path, wire = "/rerank", _rerank(body, losses)
        else:
            raise InvalidRequest(f"task: {task!r} is not on TEI's wire; one of: embedding, rerank")
        try:
            return WireCall("POST", path, _encode(wire), warnings=losses.warnings)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequest(f"body: can't be written as JSON: {error}") from error

    def decode(self, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        if status != 200:
            raise self.error(status, headers, content)
        if task == "embedding" and content[:64].lstrip()[:1] == b"{":
            return self._openai.decode(task, status, headers, content)
        try:
            body = _decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._malformed(f"the body is not JSON ({error})", headers, content) from error
        if type(body) is not list or not body:
            raise self.error(status, headers, content)
        if task == "embedding":
            if not all(type(vector) is list and vector for vector in body):
                raise self._malformed("an embedding is missing", headers, content)
            data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(body)]
            reply = _counted({"object": "list", "data": data, "model": ""}, headers)
        else:
            results = [_ranked(entry) for entry in body]
            if None in results:
                raise self._malformed("a result has no index or no score", headers, content)
            reply = _counted({"object": "list", "results": results}, headers)
        reply.provider_request_id = request_id(headers)
        return reply

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        return False

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        raise InvalidRequest(f"task: an answer to {task} can't be streamed")

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        return typed_error(status, headers, content, self._wall())

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        return None

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def probe(self) -> WireCall:
        return WireCall("GET", "/info", b"")

    def models(self, content: bytes) -> list[str]:
        """The server's one model, under its name and, where that is another, its id."""
        try:
            body = _decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        names = [body.get("served_model_name"), body.get("model_id")] if type(body) is dict else []
        return list(dict.fromkeys(name for name in names if type(name) is str and name))

    def _malformed(self, what: str, headers: Mapping[str, str], content: bytes) -> Malformed:
        return Malformed(f"HTTP 200: {what}: {excerpt(content)}", status=200, provider_request_id=request_id(headers))


def _embedding(body: dict[str, Any], model: str, losses: Losses) -> tuple[str, dict[str, Any]]:
    texts = body.get("input")
    if not isinstance(texts, str | list) or not texts:
        raise InvalidRequest("body.input: expected a text or a list of texts")
    native = {name: body[name] for name in _NATIVE if body.get(name) is not None}
    dimensions = {"dimensions": body["dimensions"]} if body.get("dimensions") is not None else {}
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise InvalidRequest(f"body.encoding_format: {form!r} is not a format; one of: float, base64")
    for name, value in body.items():
        if name in ("input", "dimensions", "encoding_format") or name in native or name in _COMMON:
            continue
        if name == "user" and not native and value is not None:
            continue
        losses.lose_field(name, value)
    if native:
        # /embed sends numbers; the caller's base64 is made of them here: engine.tasks.embedding.
        direction = native.get("truncation_direction")
        if type(direction) is str:
            native["truncation_direction"] = direction.capitalize()
        return "/embed", {"inputs": texts, **native, **dimensions}
    user = {"user": body["user"]} if body.get("user") is not None else {}
    packed = {"encoding_format": form} if form else {}
    return "/v1/embeddings", {"model": model, "input": texts, **packed, **dimensions, **user}


def _rerank(body: dict[str, Any], losses: Losses) -> dict[str, Any]:
    query, documents = body.get("query"), body.get("documents")
    if type(query) is not str:
        raise InvalidRequest("body.query: expected a text")
    if type(documents) is not list or not documents:
        raise InvalidRequest("body.documents: expected a list of texts")
    wire: dict[str, Any] = {"query": query, "texts": [_text(each, at) for at, each in enumerate(documents)]}
    if body.get("return_documents"):
        wire["return_text"] = True
    for name, value in body.items():
        if name in _RERANK and value is not None:
            wire[name] = value.capitalize() if name == "truncation_direction" and type(value) is str else value
        elif name not in _RANKED:
            losses.lose_field(name, value)
    return wire


def _text(document: Any, index: int) -> str:
    text = document.get("text") if type(document) is dict and len(document) == 1 else document
    if type(text) is not str:
        raise InvalidRequest(f'body.documents[{index}]: TEI ranks text only: a text, or {{"text": …}} and nothing else')
    return text


def _ranked(entry: Any) -> dict[str, Any] | None:
    if type(entry) is not dict or type(entry.get("index")) is not int or type(entry.get("score")) not in (float, int):
        return None
    result = {"index": entry["index"], "relevance_score": entry["score"]}
    if type(entry.get("text")) is str:
        result["document"] = {"text": entry["text"]}
    return result


def _counted(body: dict[str, Any], headers: Mapping[str, str]) -> Reply:
    """The reply with its usage, which the native paths tell in a header."""
    said = headers.get(_HEADER_TOKENS, "")
    if not (said.isascii() and said.isdigit()):
        return Reply(body)
    usage = Usage(int(said[:18]), 0)
    body["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return Reply(body, usage)
