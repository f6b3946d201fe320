"""Any wire protocol, as the simulated server speaks it: pure functions of bytes over a `ServerDialect`.

The answers are canonical; the dialect gives them their form, and refusals theirs. What a provider's own server has
else, such as the headers with limits, is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.core.errors import FAILURES
from engine.core.registry import SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.common.server import client_key
from engine.dialects.server import ClientCall, Describing, ServerDialect, StreamEncoder
from engine.schemas.simulated import STATUSES, SimulatedProviderSpec
from engine.simulation import answers, hints
from engine.simulation.capacity import Level
from engine.simulation.provider import Failure, Plan

WIRES: Mapping[str, tuple[str, str]] = {
    "openai": ("openai", "/v1"),
    "anthropic": ("claude", ""),
    "gemini": ("gemini", "/v1beta"),
    "ollama": ("ollama", ""),
    "tgi": ("hf_tgi", ""),
    "tei": ("hf_tei", ""),
    "kserve": ("kserve", ""),
    "opea": ("opea", "/v1"),
}
"""Dialect → a provider that speaks it, and what its base_url ends with. A path that several have is the first one's."""
_LEFT_TO_OTHERS = {("openai", "/rerank")}
"""Further paths of a wire under another name, and paths for a wire that has no other."""
_REQUEST_ID = {"anthropic": "request-id"}
"""The header with the id of a call, where it is not x-request-id."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that all pieces of one answer share."""

    call: ClientCall
    model: str
    answer_id: str
    created: int
    """Seconds since 1970."""

    def chunk(self, content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
        """A canonical piece; content None is the one that ends the answer."""
        return answers.chunk(self.call.task, self.answer_id, self.created, self.model, content, finish_reason)


class Wire:
    """One wire protocol over a simulated provider."""

    def __init__(self, dialect: str, spec: SimulatedProviderSpec, model: str) -> None:
        """`dialect` is a name of `WIRES`, `model` the one that it lists."""
        self.name = dialect
        self._dialect: ServerDialect = SERVER_DIALECTS.get(dialect)()
        self._spec = spec
        self._model = model
        self.stream_type = self._dialect.stream_type
        self.pages = self._dialect.pages if isinstance(self._dialect, Describing) else frozenset()
        """(method, path) of the pages that describe the server, except the list of models."""
        self.routes = {
            route: task
            for route, task in self._dialect.routes.items()
            if (task in answers.TASKS or task == "models") and (dialect, route[1]) not in _LEFT_TO_OTHERS
        }
        """(method, path) → task, of those that a simulated provider answers, and `models`."""

    def read(self, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes) -> ClientCall:
        """The request. `path` comes with its query, `parts` are the values of the route's braces. Raises
        InvalidRequest."""
        call = self._dialect.read(path, parts, headers, content)
        answers.check(call.task, call.body)
        return call

    def head(self, call: ClientCall, answer_id: str, created: int) -> Head:
        return Head(call, call.model or self._model, answer_id, created)

    def whole(self, head: Head, plan: Plan) -> bytes:
        """The body of a reply."""
        call, usage = head.call, Usage(plan.input_tokens, plan.tokens)
        if call.task in answers.COMPUTED:
            body = answers.computed(call.task, call.body, self._spec.dimensions, head.model, usage)
        else:
            text = answers.text(plan.tokens, plan.begun)
            body = answers.whole(call.task, head.answer_id, head.created, head.model, text, plan.finish_reason, usage)
        return self._dialect.reply(call, body)

    def stream(self, head: Head, plan: Plan) -> Stream:
        return Stream(self._dialect.stream_encoder(head.call), head, plan)

    def models(self) -> bytes:
        """The list of models."""
        return self._dialect.models([self._model])

    def page(self, path: str, parts: Mapping[str, str], content: bytes) -> tuple[int, bytes]:
        """Status and body of one of `pages`."""
        assert isinstance(self._dialect, Describing)
        return self._dialect.page(path, parts, content, [self._model])

    def refusal(self, failure: Failure, answer_id: str, wall_s: float) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a refusal. `wall_s` is the time now in seconds since 1970."""
        error = FAILURES[failure.word](
            f"simulated: {failure.message}." + hints.sentence(failure.hint, failure.wait_s),
            provider_request_id=answer_id,
        )
        own, headers, content = self._dialect.refusal(error)
        status = failure.status or 500
        # A status that the wire has for this failure alone is more like it than the usual one.
        if own != error.status_code and status == STATUSES[failure.kind][0] and failure.kind != "error_in_200":
            status = own
        headers = {
            "content-type": "application/json",
            **headers,
            **hints.headers(failure.hint, failure.wait_s, wall_s, failure.unit),
            **self._named(answer_id),
        }
        content = _completed(content, status, failure)
        return 200 if failure.kind == "error_in_200" else status, headers, content

    def headers(self, answer_id: str, levels: Mapping[str, Level], wall_s: float) -> dict[str, str]:
        """Of a served call: its id, and what is left of its key's limits where the wire tells that."""
        if not levels or self.name not in hints.LIMITS:
            return self._named(answer_id)
        return {**self._named(answer_id), **hints.LIMITS[self.name](levels, wall_s)}

    def _named(self, answer_id: str) -> dict[str, str]:
        return {_REQUEST_ID.get(self.name, "x-request-id"): answer_id}


class Stream:
    """One streamed answer, in the form of its wire."""

    __slots__ = ("_encoder", "_head", "_plan")

    def __init__(self, encoder: StreamEncoder, head: Head, plan: Plan) -> None:
        self._encoder = encoder
        self._head = head
        self._plan = plan

    def piece(self, index: int) -> bytes:
        """A token, counted from 0."""
        return self._encoder.chunk(Chunk(self._head.chunk(answers.word(self._plan.begun + index))))

    def garbled(self, index: int) -> bytes:
        """Half of the event or line with a token: it ends as it should, but no client can read it."""
        piece = self.piece(index)
        content = piece.rstrip()
        ending = piece[len(content) :]
        last = content.rpartition(ending)[2]
        return last[: len(last) // 2] + ending

    def end(self, *, terminated: bool) -> bytes:
        """Ends it: the reason, the usage and the terminator; nothing of these if not `terminated`."""
        if not terminated:
            return b""
        plan = self._plan
        last = Chunk(self._head.chunk(None, plan.finish_reason), Usage(plan.input_tokens, plan.tokens))
        return self._encoder.chunk(last) + self._encoder.end()


def key_of(headers: Mapping[str, str]) -> str | None:
    """Returns the key of a client that requests a page, such as the list of models, on any wire."""
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or client_key(headers)


def _completed(content: bytes, status: int, failure: Failure) -> bytes:
    """An error's body with the status that it names, and with the details that are the fault's hint."""
    body = _decode(content)
    error = body.get("error")
    error = error if type(error) is dict else body
    # In a reply that looks like a success the status takes the position of a code.
    if type(error.get("code")) is int or (failure.kind == "error_in_200" and "code" in error):
        error["code"] = status
    details = hints.details(failure.hint, failure.wait_s)
    if details:
        error["details"] = [*error.get("details", ()), *details]
    return _encode(body)
