"""The OpenAI wire, as a server speaks it: chat completions, completions, embeddings, models.

Source: OpenAI's API reference, "Chat", "Completions (legacy)", "Embeddings", "Streaming", and its guides "Error codes"
and "Rate limits".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.dialects.openai_server import ERRORS, TASKS, OpenAIServerDialect, client_key, event
from engine.request import Usage
from engine.simulation import answers, hints
from engine.simulation.capacity import Level
from engine.simulation.provider import Failure, Plan
from engine.simulation.wire import Call, Head
from engine.tasks.usage import openai_usage
from schemas.simulated import SimulatedProviderSpec

_encode = msgspec.json.Encoder().encode


class OpenAIWire:
    """The OpenAI wire below `/v1`."""

    stream_type = "text/event-stream"
    tasks = {path: task for path, task in TASKS.items() if task != "rerank"}

    def __init__(self, spec: SimulatedProviderSpec, model: str) -> None:
        self._spec = spec
        self._model = model
        self._server = OpenAIServerDialect()
        self.pages: dict[str, Callable[[], bytes]] = {"/v1/models": self._models}

    def read(self, path: str, headers: Mapping[str, str], content: bytes) -> Call:
        call = self._server.read(path, {}, headers, content)
        if call.task == "embedding":
            answers.inputs(call.body)
        return Call(call.task, call.body, call.stream, call.key, call.model or self._model)

    def key(self, headers: Mapping[str, str]) -> str | None:
        return client_key(headers)

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
        return event(self._chunk(head, answers.word(index)))

    def end(self, head: Head, plan: Plan, *, terminated: bool) -> bytes:
        pieces = [event(self._chunk(head, None, plan.finish_reason))]
        options = head.call.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            usage = openai_usage(Usage(plan.input_tokens, plan.tokens))
            pieces.append(event({**self._chunk(head, None), "choices": [], "usage": usage}))
        if terminated:
            pieces.append(b"data: [DONE]\n\n")
        return b"".join(pieces)

    def garbled(self) -> bytes:
        return b'data: {"choices": [{"index": 0, "delta": {"con\n\n'

    def error(self, failure: Failure, wall_s: float) -> tuple[int, dict[str, str], bytes]:
        status = failure.status or 500
        kind, code = ERRORS[failure.word]
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
        return self._server.models([self._model])

    @staticmethod
    def _chunk(head: Head, content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
        call = head.call
        return answers.chunk(call.task, head.answer_id, head.created, call.model, content, finish_reason)


def code_of(failure: Failure) -> str | None:
    """What a client finds as the error's code; None where there is no reply."""
    if failure.status is None:
        return None
    return ERRORS[failure.word][0 if failure.kind == "error_in_200" else 1]
