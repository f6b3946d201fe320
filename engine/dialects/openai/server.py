"""The OpenAI wire, as a server speaks it: every operation that answers, and the list of models.

The canonical form is this wire, so a client's body is taken as it is. Source: OpenAI's API reference, "Chat",
"Completions (legacy)", "Embeddings", "Responses", "Moderations", "Images", "Audio", "Streaming", "Models", and its
guides "Error codes" and "Rate limits"; the rerank paths are vLLM's and Cohere's.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from array import array
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.stream import Chunk
from engine.core.task_table import TASKS, having
from engine.core.usage import Usage
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json
from engine.dialects.common.server import client_key, unpacked
from engine.dialects.openai.multipart_forms import FILES, decode_form
from engine.dialects.openai.score import read_score_request, score_reply
from engine.dialects.server import ClientCall, StreamEncoder
from engine.media.reader import CONTENT_TYPES

_encode = msgspec.json.Encoder().encode

PATHS = {
    f"/v1{record.path}": task for task, record in TASKS.items() if record.path
} | {alias: task for task, aliases in having("aliases").items() for alias in aliases}  # fmt: skip
"""Task by path."""
ERRORS: dict[str, tuple[str, str]] = {
    "throttled": ("rate_limit_error", "rate_limit_exceeded"),
    "quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "auth": ("invalid_request_error", "invalid_api_key"),
    "invalid_request": ("invalid_request_error", "invalid_value"),
    "too_long": ("invalid_request_error", "context_length_exceeded"),
    "content_filtered": ("invalid_request_error", "content_policy_violation"),
    "truncated": ("server_error", "truncated"),
    "malformed": ("server_error", "malformed"),
    "timeout": ("server_error", "timeout"),
    "connect": ("server_error", "connect"),
    "server": ("server_error", "server_error"),
    "overloaded": ("server_error", "overloaded"),
    "circuit_open": ("server_error", "service_unavailable"),
    "queue_full": ("server_error", "service_unavailable"),
    "deadline": ("server_error", "timeout"),
    "cancelled": ("server_error", "cancelled"),
    "internal": ("server_error", "internal_error"),
}
"""`type` and `code` of an error's body, by the word of the failure vocabulary."""
_TEXTS = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}
"""Content types of transcripts that are no JSON."""
_PARAM = re.compile(r"body\.([A-Za-z0-9_.\[\]]+)")


class OpenAIServerDialect:
    """The OpenAI wire, for clients of ours."""

    routes = {("POST", path): task for path, task in PATHS.items()} | {("GET", "/v1/models"): "models"}
    stream_type = "text/event-stream"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        task = PATHS[path.partition("?")[0]]
        said = headers.get("content-type", "")
        form = task in FILES and said.lower().startswith("multipart/form-data")
        body = decode_form(task, content, said) if form else asked_json(content)
        for field, kind, expected in TASKS[task].needs:
            if not isinstance(body.get(field), kind):
                raise InvalidRequest(f"body.{field}: expected {expected}")
        model = body.get("model")
        if model is not None and type(model) is not str:
            raise InvalidRequest("body.model: expected the name of a model")
        stream = body.pop("stream", None)
        if stream is not None and type(stream) is not bool:
            raise InvalidRequest("body.stream: expected true or false")
        if stream and not TASKS[task].client_streams:
            raise InvalidRequest(f"body.stream: an answer to {task} can't be streamed; leave it out")
        if task == "sentence-similarity":
            body = read_score_request(body)
        if task == "speech":
            stream = body.get("stream_format") == "sse"
        return ClientCall(
            task,
            body,
            bool(stream),
            model,
            client_key(headers),
            reply_type=_reply_type(task, body.get("response_format")),
        )

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        if call.task == "speech":
            return base64.b64decode(body["audio"]["data"])
        if call.reply_type != "application/json":
            return str(body["text"]).encode()
        if call.task == "sentence-similarity":
            body = score_reply(body, call.model or "")
        elif TASKS[call.task].reply_object is None:
            body = body if call.task == "moderation" else {name: body[name] for name in body if name != "model"}
        elif "object" not in body or "model" not in body:
            body = {"object": TASKS[call.task].reply_object, "model": call.model or "", **body}
        if call.task == "embedding":
            body = _in_form(body, call.body.get("encoding_format"))
        return _encode(body)

    def stream_encoder(self, call: ClientCall) -> StreamEncoder:
        return OpenAIStreamEncoder(call) if call.task in ("chat", "completion") else EventStreamEncoder(call)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        headers: dict[str, str] = {}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(math.ceil(error.retry_after_s))
            headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
        elif error.parks_key:
            # OpenAI's own clients try every 429 again unless the header says that it is useless.
            headers["x-should-retry"] = "false"
        return error.status_code, headers, _encode(error_body(error))

    def models(self, names: list[str]) -> bytes:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "engine"} for name in names]
        return _encode({"object": "list", "data": data})


class OpenAIStreamEncoder:
    """Server-sent events that `data: [DONE]` ends. The usage comes in a chunk of its own where it was requested."""

    __slots__ = ("_last", "_owed", "_wanted")

    def __init__(self, call: ClientCall) -> None:
        options = call.body.get("stream_options")
        self._wanted = isinstance(options, dict) and options.get("include_usage") is True
        self._owed: Usage | None = None
        """The usage that came with a chunk, until a body has it."""
        self._last: dict[str, Any] = {}

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        body = chunk.body
        if body.get("usage"):
            self._owed = None
            if not self._wanted and not body.get("choices"):
                return b""
        elif self._wanted:
            self._owed = chunk.usage or self._owed
            self._last = body
        return event(body)

    @writes
    def end(self) -> bytes:
        if self._owed is None:
            return b"data: [DONE]\n\n"
        head: dict[str, Any] = {
            name: self._last[name] for name in ("id", "object", "created", "model") if name in self._last
        }
        return event({**head, "choices": [], "usage": usage_body(self._owed)}) + b"data: [DONE]\n\n"

    def failed(self, error: InferenceError) -> bytes:
        return event(error_body(error))


class EventStreamEncoder:
    """Server-sent events with a type, the last of which ends the answer: there is no `[DONE]`."""

    __slots__ = ("_named", "_sent")

    def __init__(self, call: ClientCall) -> None:
        self._named = call.task == "response" or TASKS[call.task].gives_images
        """The event's name is before it, too, as OpenAI has it for these."""
        self._sent = 0

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        if chunk.restarted:
            return b": the answer begins anew\n\n"
        self._sent += 1
        return self._event(chunk.body)

    @writes
    def end(self) -> bytes:
        return b""

    def failed(self, error: InferenceError) -> bytes:
        body = error_body(error)
        said = {name: body["error"][name] for name in ("code", "message", "param")}
        return self._event({"type": "error", **said, "sequence_number": self._sent, **body})

    def _event(self, body: dict[str, Any]) -> bytes:
        return b"event: " + str(body.get("type")).encode() + b"\n" + event(body) if self._named else event(body)


def error_body(error: InferenceError) -> dict[str, Any]:
    """The error object, with the field that it is about where the message names one."""
    kind, code = ERRORS[error.kind]
    if error.kind == "invalid_request" and error.code:
        code = error.code  # the provider's own says more, such as model_not_found
    field = _PARAM.match(error.message)
    param = field[1] if field else None
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def usage_body(usage: Usage) -> dict[str, Any]:
    """The `usage` object, with cached and reasoning tokens where there are any."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + _encode(data) + b"\n\n"


def _reply_type(task: str, form: Any) -> str:
    """The content type of what a client requested."""
    if task == "speech":
        return CONTENT_TYPES.get(form if isinstance(form, str) else "mp3", "application/octet-stream")
    if task in ("transcription", "audio-translation") and isinstance(form, str):
        return _TEXTS.get(form, "application/json")
    return "application/json"


def _in_form(body: dict[str, Any], form: Any) -> dict[str, Any]:
    """The vectors as the client requested them, whatever a provider sent: numbers, or base64 of little-endian float32.
    Most SDKs request base64 unless told otherwise."""
    wanted = str if form == "base64" else list
    data = body.get("data")
    if type(data) is not list or all(type(item.get("embedding")) is wanted for item in data):
        return body
    return {**body, "data": [{**item, "embedding": _vector(item.get("embedding"), wanted)} for item in data]}


def _vector(vector: Any, wanted: type) -> Any:
    if type(vector) is list and wanted is str:
        packed = array("f", vector)
        if sys.byteorder == "big":
            packed.byteswap()
        return base64.b64encode(packed.tobytes()).decode("ascii")
    return unpacked(vector) if type(vector) is str and wanted is list else vector
