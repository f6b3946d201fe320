"""Gemini's batch API: batchGenerateContent and asyncBatchEmbedContent, requests inline or in an uploaded file.

Sources: the Gemini API's reference (v1beta), "Batch API" and "Files", its guide "Batch API", and the converters of the
Python client google-genai 3 (`batches.py`, `files.py`, `_transformers.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest, Malformed, ServerFailed, TimedOut
from engine.dialects.batch import (
    ENDED,
    FAILED,
    RUNNING,
    BatchCall,
    Heard,
    JobRequest,
    JobView,
    Member,
    count_of,
    line_of,
    object_of,
    seconds_of,
    text_of,
)
from engine.dialects.client import WireCall
from engine.dialects.common.batch_base import HttpBatchDialect

INLINE_BYTES = 18_000_000
"""More requests than this are uploaded as a file; inline the whole call may have 20 MB."""
_PAGE = 100
_METHODS = {"chat": "batchGenerateContent", "embedding": "asyncBatchEmbedContent"}
_STATES = {"SUCCEEDED": ENDED, "EXPIRED": ENDED, "CANCELLED": ENDED, "FAILED": FAILED}
"""After `BATCH_STATE_`, as the reference has them, or `JOB_STATE_`, as the clients do; any other: not ended."""
_CODES = {
    # google.rpc.Code: its word and the HTTP status that goes with it (google/rpc/code.proto).
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}
_encode = msgspec.json.Encoder().encode


class GeminiBatchDialect(HttpBatchDialect):
    """Gemini's batch API."""

    lists_nothing = True
    anonymous = False
    ordered = True

    def takes(self, task: str, wire: WireCall) -> bool:
        # batchEmbedContents is many texts in one request; a member of a job embeds one.
        return task in _METHODS and not wire.path.endswith(":batchEmbedContents")

    def member(self, custom_id: str, task: str, wire: WireCall) -> bytes:
        return _encode({"key": custom_id, "request": msgspec.Raw(wire.content)})

    def upload(self, job: JobRequest) -> Generator[BatchCall, Heard, str | None]:
        size = sum(map(len, job.lines)) + len(job.lines)
        if size <= INLINE_BYTES:
            return None
        headers = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
        }
        about = _encode({"file": {"displayName": job.tag, "mimeType": "application/jsonl"}})
        heard = yield BatchCall("POST", "/files", about, headers, base="upload")
        if heard.status != 200:
            raise self._unreadable(heard)
        # Its path and query, at the host that was configured: a key follows no host that a reply names.
        _, _, path = heard.headers.get("x-goog-upload-url", "").partition("://")[2].partition("/")
        if not path:
            raise Malformed("the reply to the start of an upload has no x-goog-upload-url", status=heard.status)
        headers = {"x-goog-upload-offset": "0", "x-goog-upload-command": "upload, finalize"}
        content = b"\n".join((*job.lines, b""))
        heard = yield BatchCall("POST", f"/{path}", content, headers, base="origin")
        body = object_of(heard, self.live)
        file = body.get("file")
        name = text_of(file, "name") if type(file) is dict else None
        if name is None:
            raise self._unreadable(heard)
        return name

    def create(self, job: JobRequest, file: str | None) -> BatchCall:
        source = msgspec.Raw(_encode({"fileName": file}) if file else _inline(job.lines))
        batch = {"displayName": job.tag, "inputConfig": source}
        model = job.model if "/" in job.model else f"models/{job.model}"
        return BatchCall("POST", f"/{model}:{_METHODS[job.task]}", _encode({"batch": batch}))

    def file(self, id: str) -> BatchCall | None:
        return BatchCall("GET", f"/{id}", b"")

    def poll(self, id: str) -> BatchCall:
        return BatchCall("GET", f"/{id}", b"")

    def listing(self, cursor: str | None = None) -> BatchCall:
        page = f"&pageToken={cursor}" if cursor else ""
        return BatchCall("GET", f"/batches?pageSize={_PAGE}{page}", b"")

    def listed(self, heard: Heard) -> tuple[list[JobView], str | None]:
        views, body = self._views(heard, "operations")
        return views, text_of(body, "nextPageToken")

    def results(self, view: JobView, file: str) -> BatchCall:
        return BatchCall("GET", f"/{file}:download?alt=media", b"", base="download")

    def read(self, line: bytes, place: int) -> Member:
        body = line_of(line)
        metadata = body.get("metadata")
        key = text_of(body, "key") or (text_of(metadata, "key") if type(metadata) is dict else None)
        if type(body.get("response")) is dict:
            return Member(key, content=_encode(body["response"]))
        status = body.get("error", body.get("status"))
        if type(status) is dict:
            return Member(key, error=self._status_error(status))
        if "candidates" in body or "promptFeedback" in body or "embedding" in body:
            return Member(key, content=line)  # a bare reply; its place says whose it is
        raise Malformed("a line of the results has neither a response nor an error")

    def cancel(self, id: str) -> BatchCall:
        return BatchCall("POST", f"/{id}:cancel", b"")

    def _view(self, body: Mapping[str, Any], heard: Heard) -> JobView:
        name, metadata = text_of(body, "name"), body.get("metadata")
        if name is None or type(metadata) is not dict:
            raise self._unreadable(heard)
        said = text_of(metadata, "state") or "BATCH_STATE_UNSPECIFIED"
        state = _STATES.get(said.rpartition("STATE_")[2], RUNNING)
        stats = metadata.get("batchStats")
        view = JobView(
            name,
            state,  # type: ignore[arg-type]
            said,
            tag=text_of(metadata, "displayName"),
            created_s=seconds_of(text_of(metadata, "createTime")),
            total=count_of(stats, "requestCount"),
            done=count_of(stats, "successfulRequestCount"),
            failed=count_of(stats, "failedRequestCount"),
        )
        if state == FAILED:
            error = body.get("error")
            view.error = self._status_error(error) if type(error) is dict else ServerFailed("the batch failed")
        elif state == ENDED:
            self._output(view, body, metadata)
        return view

    def _output(self, view: JobView, body: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Fills in the places of the results: the clients read them from the metadata, the guide from the response."""
        for place in (body.get("response"), metadata.get("output")):
            output = place.get("output", place) if type(place) is dict else {}
            if type(output) is not dict:
                continue
            file = text_of(output, "responsesFile")
            if file is not None:
                view.files = (file,)
                return
            for name in ("inlinedResponses", "inlinedEmbedContentResponses"):
                inlined = output.get(name)
                entries = inlined.get("inlinedResponses") if type(inlined) is dict else inlined
                if type(entries) is list:
                    view.inline = [_encode(entry) for entry in entries]
                    return

    def _status_error(self, status: Mapping[str, Any]) -> InferenceError:
        """The error for a `google.rpc.Status`, whose code is a number of google.rpc.Code, or an HTTP status."""
        code = status.get("code")
        word, http = _CODES.get(code, ("UNKNOWN", 500)) if type(code) is int else ("UNKNOWN", 500)
        if type(code) is int and code >= 400:
            http = code
            word = next((known for known, number in _CODES.values() if number == code), word)
        message = str(status.get("message") or "no message")
        if word == "CANCELLED":
            return ServerFailed(message, code=word)
        if word == "DEADLINE_EXCEEDED":
            return TimedOut(message, code=word)
        body = {"error": {"code": http, "message": message, "status": word, "details": status.get("details") or []}}
        error = self.live.error(http, {}, _encode(body))
        return error if isinstance(error, InferenceError) else InvalidRequest(message, code=word)


def _inline(lines: list[bytes]) -> bytes:
    """The requests of lines, in the form that is in the call itself."""
    requests = []
    for line in lines:
        entry = msgspec.json.decode(line, type=_Line)
        requests.append({"request": entry.request, "metadata": {"key": entry.key}})
    return _encode({"requests": {"requests": requests}})


class _Line(msgspec.Struct):
    key: str
    request: msgspec.Raw
