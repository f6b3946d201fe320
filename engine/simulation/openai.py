"""The OpenAI wire, as a server speaks it: chat completions, completions, embeddings, models.

Source: OpenAI's API reference, "Chat", "Completions (legacy)", "Embeddings", "Streaming", and its guides "Error codes"
and "Rate limits".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.errors import InvalidRequest
from engine.request import Usage
from engine.simulation import answers, hints
from engine.simulation.capacity import Level
from engine.simulation.provider import Failure, Plan
from engine.simulation.wire import Call, Head
from engine.tasks.usage import openai_usage
from schemas.simulated import SimulatedProviderSpec

_encode = msgspec.json.Encoder().encode
_CODES: dict[str, tuple[str, str | None]] = {
    "throttled": ("rate_limit_error", "rate_limit_exceeded"),
    "quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "auth": ("invalid_request_error", "invalid_api_key"),
    "invalid_request": ("invalid_request_error", "invalid_value"),
    "too_long": ("invalid_request_error", "context_length_exceeded"),
    "content_filtered": ("invalid_request_error", "content_policy_violation"),
    "server": ("server_error", "server_error"),
    "overloaded": ("server_error", "overloaded"),
    "timeout": ("server_error", "timeout"),
}
"""`type` and `code` of an error's body, by the word of the failure vocabulary."""
_NEEDS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "chat": ("messages", list),
    "completion": ("prompt", (str, list)),
    "embedding": ("input", (str, list)),
}


class OpenAIWire:
    """The OpenAI wire below `/v1`."""

    stream_type = "text/event-stream"
    tasks = {"/v1/chat/completions": "chat", "/v1/completions": "completion", "/v1/embeddings": "embedding"}

    def __init__(self, spec: SimulatedProviderSpec, model: str) -> None:
        self._spec = spec
        self._model = model
        self.pages: dict[str, Callable[[], bytes]] = {"/v1/models": self._models}

    def read(self, path: str, headers: Mapping[str, str], content: bytes) -> Call:
        task = self.tasks[path]
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise InvalidRequest("the body is not an object")
        field, kind = _NEEDS[task]
        if not isinstance(body.get(field), kind):
            raise InvalidRequest(f"{field}: missing or of a wrong type")
        if task == "embedding":
            answers.inputs(body)
        model = body.get("model")
        stream = task != "embedding" and body.get("stream") is True
        return Call(task, body, stream, self.key(headers), model if isinstance(model, str) else self._model)

    def key(self, headers: Mapping[str, str]) -> str | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def whole(self, head: Head, plan: Plan) -> bytes:
        call = head.call
        usage = Usage(plan.input_tokens, plan.tokens)
        if call.task == "embedding":
            return _encode(answers.embeddings(answers.inputs(call.body), self._spec.dimensions, call.model, usage))
        return _encode(
            answers.whole(
                call.task,
                head.answer_id,
                head.created,
                call.model,
                answers.text(plan.tokens, plan.begun),
                plan.finish_reason,
                usage,
            )
        )

    def piece(self, head: Head, index: int) -> bytes:
        return _event(self._chunk(head, answers.word(index)))

    def end(self, head: Head, plan: Plan, *, terminated: bool) -> bytes:
        pieces = [_event(self._chunk(head, None, plan.finish_reason))]
        options = head.call.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            usage = openai_usage(Usage(plan.input_tokens, plan.tokens))
            pieces.append(_event({**self._chunk(head, None), "choices": [], "usage": usage}))
        if terminated:
            pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def garbled(self) -> bytes:
        return b'data: {"choices": [{"index": 0, "delta": {"con\n\n'

    def error(self, failure: Failure, wall_s: float) -> tuple[int, dict[str, str], bytes]:
        status = failure.status or 500
        kind, code = _CODES[failure.word]
        body: dict[str, Any] = {
            "message": f"simulated: {failure.message}." + hints.sentence(failure.hint, failure.wait_s),
            "type": kind,
            "param": None,
            # The status goes first where the reply's own status says nothing.
            "code": status if failure.kind == "error_in_200" else code,
        }
        details = hints.details(failure.hint, failure.wait_s)
        if details:
            body["details"] = details
        headers = hints.headers(failure.hint, failure.wait_s, wall_s, failure.unit)
        return 200 if failure.kind == "error_in_200" else status, headers, _encode({"error": body})

    def limit_headers(self, levels: Mapping[str, Level]) -> dict[str, str]:
        found = {}
        for unit, level in levels.items():
            found[f"x-ratelimit-limit-{unit}"] = str(level.limit)
            found[f"x-ratelimit-remaining-{unit}"] = str(level.remaining)
            found[f"x-ratelimit-reset-{unit}"] = hints.duration(level.reset_s)
        return found

    def _models(self) -> bytes:
        entry = {"id": self._model, "object": "model", "created": 0, "owned_by": "simulated"}
        return _encode({"object": "list", "data": [entry]})

    @staticmethod
    def _chunk(head: Head, content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
        call = head.call
        return answers.chunk(call.task, head.answer_id, head.created, call.model, content, finish_reason)


def code_of(failure: Failure) -> str | None:
    """What a client finds as the error's code; None where there is no reply."""
    if failure.status is None:
        return None
    return _CODES[failure.word][0 if failure.kind == "error_in_200" else 1]


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"
