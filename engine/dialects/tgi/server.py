"""Text Generation Inference's own wire, as a server speaks it: /generate, /generate_stream, /, /info.

Its OpenAI path is the OpenAI dialect's. Source: the server's OpenAPI document and its router (router/src/server.rs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.stream import Chunk
from engine.dialects.common.boundary import reads_request, writes
from engine.dialects.common.json_body import asked_json, retry_after
from engine.dialects.common.server import client_key
from engine.dialects.server import ClientCall
from engine.dialects.tgi.request import OWN, PARAMETERS

_encode = msgspec.json.Encoder().encode
_FIELDS = {wire: canonical for canonical, wire in PARAMETERS.items() if canonical != "max_completion_tokens"}
_REASONS = {"stop": "eos_token"}
"""Finish reasons; an answer that a stop sequence ended looks like one that ended by itself."""
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p")
"""Parameters that request sampling by being there; without them, and without `do_sample`, the likeliest is taken."""
STATUSES = {
    "throttled": (429, "overloaded"),
    "overloaded": (429, "overloaded"),
    "queue_full": (429, "overloaded"),
    "circuit_open": (429, "overloaded"),
    "invalid_request": (422, "validation"),
    "too_long": (422, "validation"),
    "content_filtered": (422, "validation"),
    "truncated": (500, "incomplete_generation"),
    "malformed": (424, "generation"),
    "server": (424, "generation"),
    "connect": (424, "generation"),
}
"""Status and `error_type` by the word of the failure vocabulary; for others the word itself and its own status."""


@dataclass(slots=True)
class TgiCall(ClientCall):
    """A call, and in which form its reply must come."""

    details: bool = False
    listed: bool = False
    """On the root path, whose whole replies are lists."""


class TgiServerDialect:
    """Text Generation Inference's own wire, for clients of ours."""

    routes = {
        ("POST", "/generate"): "completion",
        ("POST", "/generate_stream"): "completion",
        ("POST", "/"): "completion",
        ("GET", "/info"): "models",
    }
    pages = frozenset((("GET", "/health"), ("GET", "/"), ("GET", "/metrics")))
    stream_type = "text/event-stream"

    @reads_request
    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        wire = asked_json(content)
        if type(wire.get("inputs")) is not str or not wire["inputs"]:
            raise InvalidRequest("body.inputs: expected a text that is not empty")
        parameters = wire.get("parameters")
        if parameters is None:
            parameters = {"do_sample": True}  # the server's default of the whole, though not of its part
        if type(parameters) is not dict:
            raise InvalidRequest("body.parameters: expected an object")
        path = path.partition("?")[0]
        stream = path == "/generate_stream" or (path == "/" and wire.get("stream") is True)
        body: dict[str, Any] = {"prompt": wire["inputs"]}
        warnings = _read_parameters(parameters, body)
        details = parameters.get("details") is True
        listed = path == "/"
        key = client_key(headers)
        return TgiCall("completion", body, stream, None, key, warnings, details=details, listed=listed)

    @writes
    def reply(self, call: ClientCall, body: dict[str, Any]) -> bytes:
        choice = body["choices"][0]
        wire: dict[str, Any] = {"generated_text": choice.get("text") or ""}
        if isinstance(call, TgiCall) and call.details:
            tokens, likeliest = _tokens(choice)
            wire["details"] = {
                "finish_reason": _reason(choice.get("finish_reason")),
                "generated_tokens": (body.get("usage") or {}).get("completion_tokens") or 0,
                "seed": call.body.get("seed"),
                "prefill": [],
                "tokens": tokens,
            }
            if likeliest:
                wire["details"]["top_tokens"] = likeliest
        return _encode([wire] if isinstance(call, TgiCall) and call.listed else wire)

    def stream_encoder(self, call: ClientCall) -> TgiStreamEncoder:
        return TgiStreamEncoder(call)

    def refusal(self, error: InferenceError) -> tuple[int, dict[str, str], bytes]:
        headers = retry_after(error)
        status, _ = STATUSES.get(error.kind, (error.status_code, ""))
        return status, headers, _encode(error_body(error))

    def models(self, names: list[str]) -> bytes:
        """The server's description of itself; such a server has one model, so it is the first."""
        name = names[0] if names else ""
        return _encode({"model_id": name, "model_pipeline_tag": "text-generation", "router": "engine"})

    def page(self, path: str, parts: Mapping[str, str], content: bytes, names: list[str]) -> tuple[int, bytes]:
        """The server's health, and an empty page of metrics: ours have names of their own."""
        return 200, b""


class TgiStreamEncoder:
    """Server-sent events, one a chunk; the last has the whole text, which so is kept until then."""

    __slots__ = ("_call", "_index", "_input_tokens", "_output_tokens", "_reason", "_texts")

    def __init__(self, call: ClientCall) -> None:
        self._call = call
        self._index = 0
        self._texts: list[str] = []
        self._reason: str | None = None
        self._input_tokens = self._output_tokens = 0

    @writes
    def chunk(self, chunk: Chunk) -> bytes:
        usage = chunk.body.get("usage")
        if usage:
            self._input_tokens = usage.get("prompt_tokens") or 0
            self._output_tokens = usage.get("completion_tokens") or 0
        elif chunk.usage is not None:
            self._input_tokens, self._output_tokens = chunk.usage.input_tokens, chunk.usage.output_tokens
        choices = chunk.body.get("choices")
        if not choices:
            return b""
        self._reason = choices[0].get("finish_reason") or self._reason
        text = choices[0].get("text")
        if not text:
            return b""
        self._texts.append(text)
        tokens, likeliest = _tokens(choices[0])
        token = tokens[0] if len(tokens) == 1 else _token(text, None)
        return self._event(token, likeliest[0] if len(likeliest) == 1 else [], None, None)

    @writes
    def end(self) -> bytes:
        details = {
            "finish_reason": _reason(self._reason),
            "generated_tokens": self._output_tokens,
            "seed": self._call.body.get("seed"),
            "input_length": self._input_tokens,
        }
        asked = isinstance(self._call, TgiCall) and self._call.details
        return self._event(_token("", None, True), [], "".join(self._texts), details if asked else None)

    def failed(self, error: InferenceError) -> bytes:
        return b"data:" + _encode(error_body(error)) + b"\n\n"

    def _event(self, token: dict[str, Any], likeliest: list[Any], text: str | None, details: Any) -> bytes:
        self._index += 1
        event: dict[str, Any] = {"index": self._index, "token": token}
        if likeliest:
            event["top_tokens"] = likeliest
        return b"data:" + _encode({**event, "generated_text": text, "details": details}) + b"\n\n"


def error_body(error: InferenceError) -> dict[str, str]:
    """The error object."""
    return {"error": error.message, "error_type": STATUSES.get(error.kind, (0, error.kind))[1]}


def _read_parameters(parameters: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """Puts the parameters into the canonical body; warnings for what it can't say. Raises InvalidRequest."""
    warnings: list[str] = []
    for name, value in parameters.items():
        if value is None or name in ("details", "do_sample", "decoder_input_details"):
            continue
        if name == "stop":
            if value:
                body["stop"] = value
        elif name == "top_n_tokens":
            body["logprobs"] = value
        elif name == "grammar":
            body["response_format"] = _read_grammar(value)
        elif name in _FIELDS:
            if value is not False:
                body[_FIELDS[name]] = value
        elif name in OWN:
            if value is not False:
                body[name] = value
        else:
            warnings.append(f"body.parameters.{name} has no effect here")
    if not parameters.get("do_sample") and all(parameters.get(name) is None for name in _SAMPLING):
        body["temperature"] = 0
    if parameters.get("decoder_input_details"):
        warnings.append("body.parameters.decoder_input_details has no effect here")
    return warnings


def _read_grammar(grammar: Any) -> dict[str, Any]:
    kind, value = (grammar.get("type"), grammar.get("value")) if type(grammar) is dict else (None, None)
    named = value if kind == "json_schema" and type(value) is dict else {"schema": value}
    if kind not in ("json", "json_object", "json_schema") or type(named.get("schema")) is not dict:
        raise InvalidRequest("body.parameters.grammar: expected type json and a JSON schema as its value")
    if named["schema"] == {"type": "object"}:
        return {"type": "json_object"}
    name = named.get("name") or "response"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": named["schema"]}}


def _reason(reason: str | None) -> str:
    return _REASONS.get(reason or "stop", reason or "eos_token")


def _token(text: str, logprob: Any, special: bool = False) -> dict[str, Any]:
    """A token, as far as it is known: the canonical form has no ids."""
    return {"id": 0, "text": text, "logprob": logprob, "special": special}


def _tokens(choice: dict[str, Any]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The tokens of a choice and the likeliest in the place of each; empty where there are no log probabilities."""
    found = choice.get("logprobs") or {}
    pairs = zip(found.get("tokens") or (), found.get("token_logprobs") or (), strict=False)
    likeliest = found.get("top_logprobs") or ()
    return (
        [_token(text, logprob) for text, logprob in pairs],
        [[_token(text, logprob) for text, logprob in (others or {}).items()] for others in likeliest],
    )
