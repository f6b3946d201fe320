"""Anthropic's Message Batches API: requests in the call that creates the batch, results as lines.

Sources: Anthropic's API reference, "Message Batches", its guide "Batch processing", and the types of its Python client
2 (`types/messages/message_batch*.py`, `resources/messages/batches.py`).

A batch carries no metadata, so a job is recognised only by the custom ids in its results; each begins with the tag.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, Malformed, ServerFailed, TimedOut
from engine.dialects.anthropic.client import SAMPLING_VERSION
from engine.dialects.batch import (
    ENDED,
    RUNNING,
    BatchCall,
    Heard,
    JobRequest,
    JobView,
    Member,
    count_of,
    line_of,
    seconds_of,
    text_of,
)
from engine.dialects.client import WireCall
from engine.dialects.common.batch_base import HttpBatchDialect

_PATH = "/v1/messages/batches"
_PAGE = 1000
"""Batches a page, the most there may be."""
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that goes with each type of error; any other is 500. Reference, "Errors"."""
_ENDS = ("succeeded", "errored", "canceled", "expired")
_encode = msgspec.json.Encoder().encode


class _Sampling(msgspec.Struct):
    """The fields of a request that only the older version of the API takes."""

    temperature: Any = None
    top_p: Any = None
    top_k: Any = None


class _Line(msgspec.Struct):
    params: _Sampling


_read_line = msgspec.json.Decoder(_Line).decode


def _sets_sampling(line: bytes) -> bool:
    params = _read_line(line).params
    return any(each is not None for each in (params.temperature, params.top_p, params.top_k))


class AnthropicBatchDialect(HttpBatchDialect):
    """Anthropic's batch API."""

    anonymous = True
    ordered = False

    def takes(self, task: str, wire: WireCall) -> bool:
        return True

    def member(self, custom_id: str, task: str, wire: WireCall) -> bytes:
        return _encode({"custom_id": custom_id, "params": msgspec.Raw(wire.content)})

    def upload(self, job: JobRequest) -> Generator[BatchCall, Heard, str | None]:
        return None
        yield  # a generator without a step: the requests go with the call that creates the batch

    def create(self, job: JobRequest, file: str | None) -> BatchCall:
        # One version holds for the whole batch, and only the older one takes sampling parameters.
        sampled = any(_sets_sampling(line) for line in job.lines)
        headers = {"anthropic-version": SAMPLING_VERSION} if sampled else {}
        return BatchCall("POST", _PATH, b'{"requests":[' + b",".join(job.lines) + b"]}", headers)

    def file(self, id: str) -> BatchCall | None:
        return None

    def poll(self, id: str) -> BatchCall:
        return BatchCall("GET", f"{_PATH}/{id}", b"")

    def listing(self, cursor: str | None = None) -> BatchCall:
        after = f"&after_id={cursor}" if cursor else ""
        return BatchCall("GET", f"{_PATH}?limit={_PAGE}{after}", b"")

    def listed(self, heard: Heard) -> tuple[list[JobView], str | None]:
        views, body = self._views(heard, "data")
        return views, text_of(body, "last_id") if body.get("has_more") else None

    def results(self, view: JobView, file: str) -> BatchCall:
        # The path of `results_url`, at the address that was configured: a key follows no URL that a reply names.
        return BatchCall("GET", f"{_PATH}/{view.id}/results", b"")

    def read(self, line: bytes, place: int) -> Member:
        body = line_of(line)
        custom_id, result = text_of(body, "custom_id"), body.get("result")
        if custom_id is None or type(result) is not dict:
            raise Malformed("a line of the results has no custom_id or no result")
        kind = result.get("type")
        if kind == "succeeded" and type(result.get("message")) is dict:
            return Member(custom_id, content=_encode(result["message"]))
        if kind == "errored":
            return self._errored(custom_id, result.get("error"))
        return Member(custom_id, error=_unanswered(kind))

    def cancel(self, id: str) -> BatchCall:
        return BatchCall("POST", f"{_PATH}/{id}/cancel", b"")

    def _errored(self, custom_id: str, reply: Any) -> Member:
        inner = reply.get("error") if type(reply) is dict else None
        kind = inner.get("type") if type(inner) is dict else None
        request_id = text_of(reply, "request_id") if type(reply) is dict else None
        headers = {"request-id": request_id} if request_id else {}
        return Member(custom_id, _STATUSES.get(str(kind), 500), headers, _encode(reply))

    def _view(self, body: Mapping[str, Any], heard: Heard) -> JobView:
        id, said, counts = text_of(body, "id"), text_of(body, "processing_status"), body.get("request_counts")
        if id is None or said is None:
            raise self._unreadable(heard)
        ended = said == "ended"
        return JobView(
            id,
            ENDED if ended else RUNNING,  # type: ignore[arg-type]
            said,
            created_s=seconds_of(text_of(body, "created_at")),
            total=sum(count_of(counts, name) for name in ("processing", *_ENDS)),
            done=count_of(counts, "succeeded"),
            failed=sum(count_of(counts, name) for name in _ENDS[1:]),
            files=("results",) if ended and body.get("results_url") else (),
        )


def _unanswered(kind: Any) -> InferenceError:
    if kind == "expired":
        return TimedOut("the batch expired before this request was processed", code="expired")
    if kind == "canceled":
        return ServerFailed("the batch was cancelled before this request was processed", code="canceled")
    return Malformed(f"a result of the type {kind!r}, which is not known")
