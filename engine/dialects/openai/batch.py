"""OpenAI's batch API, which Groq and others speak too: an uploaded file of requests, a batch, two files of results.

Sources: OpenAI's API reference, "Batches" and "Files", its guide "Batch API", and the types of its Python client 2 and
of Groq's client 1 (`types/batch*.py`, `types/file_create_params.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest, Malformed, ServerFailed, Throttled, TimedOut
from engine.core.media_access import Media
from engine.core.request import ENDPOINTS
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
    text_of,
)
from engine.dialects.client import WireCall
from engine.dialects.codecs.multipart import write_form
from engine.dialects.common.batch_base import HttpBatchDialect

TAG = "engine_job"
"""The metadata key that our tag is under."""
_PAGE = 100
"""Jobs a page, the most there may be."""
_STATES = {
    "validating": RUNNING,
    "in_progress": RUNNING,
    "finalizing": RUNNING,
    "cancelling": RUNNING,
    "completed": ENDED,
    "expired": ENDED,
    "cancelled": ENDED,
    "failed": FAILED,
}
_NEVER_RUN: dict[str, type[InferenceError]] = {
    # A line of the error file for a request that was never run.
    "batch_expired": TimedOut,
    "batch_cancelled": ServerFailed,
    "batch_interrupted": ServerFailed,
}
_encode = msgspec.json.Encoder().encode


class OpenAIBatchDialect(HttpBatchDialect):
    """OpenAI's batch API."""

    anonymous = False
    ordered = False

    def takes(self, task: str, wire: WireCall) -> bool:
        return True

    def member(self, custom_id: str, task: str, wire: WireCall) -> bytes:
        line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINTS[task], "body": msgspec.Raw(wire.content)}
        return _encode(line)

    def upload(self, job: JobRequest) -> Generator[BatchCall, Heard, str | None]:
        file_of_lines = Media(b"\n".join((*job.lines, b"")), f"{job.tag}.jsonl", "application/jsonl")
        content, kind = write_form([("purpose", "batch"), ("file", file_of_lines)])
        heard = yield BatchCall("POST", "/files", content, {"content-type": kind})
        body = object_of(heard, self.live)
        file = text_of(body, "id")
        if file is None:
            raise self._unreadable(heard)
        return file

    def create(self, job: JobRequest, file: str | None) -> BatchCall:
        body = {
            "input_file_id": file,
            "endpoint": ENDPOINTS[job.task],
            "completion_window": job.window,
            "metadata": {TAG: job.tag},
        }
        return BatchCall("POST", "/batches", _encode(body))

    def file(self, id: str) -> BatchCall | None:
        return BatchCall("GET", f"/files/{id}", b"")

    def poll(self, id: str) -> BatchCall:
        return BatchCall("GET", f"/batches/{id}", b"")

    def listing(self, cursor: str | None = None) -> BatchCall:
        after = f"&after={cursor}" if cursor else ""
        return BatchCall("GET", f"/batches?limit={_PAGE}{after}", b"")

    def listed(self, heard: Heard) -> tuple[list[JobView], str | None]:
        views, body = self._views(heard, "data")
        # Groq's list does not report further pages; a full page has one.
        more = body.get("has_more", len(body["data"]) >= _PAGE)
        return views, views[-1].id if more and views else None

    def results(self, view: JobView, file: str) -> BatchCall:
        return BatchCall("GET", f"/files/{file}/content", b"")

    def read(self, line: bytes, place: int) -> Member:
        body = line_of(line)
        custom_id = text_of(body, "custom_id")
        if custom_id is None:
            raise Malformed("a line of the results has no custom_id")
        response = body.get("response")
        if type(response) is dict and type(response.get("status_code")) is int and response["status_code"]:
            request_id = text_of(response, "request_id")
            headers = {"x-request-id": request_id} if request_id else {}
            return Member(custom_id, response["status_code"], headers, _encode(response.get("body")))
        return Member(custom_id, error=self._line_error(body.get("error")))

    def cancel(self, id: str) -> BatchCall:
        return BatchCall("POST", f"/batches/{id}/cancel", b"")

    def _view(self, body: Mapping[str, Any], heard: Heard) -> JobView:
        id, said = text_of(body, "id"), text_of(body, "status")
        if id is None or said is None:
            raise self._unreadable(heard)
        metadata, counts = body.get("metadata"), body.get("request_counts")
        created = body.get("created_at")
        files = (text_of(body, "output_file_id"), text_of(body, "error_file_id"))
        view = JobView(
            id,
            _STATES.get(said, RUNNING),  # type: ignore[arg-type]
            said,
            tag=text_of(metadata, TAG) if type(metadata) is dict else None,
            input_file=text_of(body, "input_file_id"),
            created_s=float(created) if type(created) is int else None,
            total=count_of(counts, "total"),
            done=count_of(counts, "completed"),
            failed=count_of(counts, "failed"),
            files=tuple(file for file in files if file is not None),
        )
        if view.state == FAILED:
            self._blame(view, body.get("errors"))
        return view

    def _blame(self, view: JobView, errors: Any) -> None:
        """Fills in why a job failed, and which lines are at fault."""
        data = errors.get("data") if type(errors) is dict else None
        entries = [entry for entry in data if type(entry) is dict] if type(data) is list else []
        for entry in entries:
            error = self._job_error(entry)
            if type(entry.get("line")) is int and not error.retryable and not error.parks_key:
                view.bad_lines.setdefault(entry["line"], error)
            elif view.error is None:
                view.error = error
        if view.error is None:
            view.error = next(iter(view.bad_lines.values()), None) or ServerFailed(
                "the provider gave the job up and did not say why", code="failed"
            )

    def _job_error(self, entry: Mapping[str, Any]) -> InferenceError:
        message, code = str(entry.get("message") or "no message"), text_of(entry, "code")
        if code == "token_limit_exceeded" or "nqueued token limit" in message:
            # Not the length of a request: too many tokens wait in the provider's queue just now.
            return Throttled(message, code=code)
        error = self.live.error(400, {}, _encode({"error": {"message": message, "code": code}}))
        error.message = message
        error.args = (message,)
        error.status = None
        return error

    def _line_error(self, error: Any) -> InferenceError:
        if type(error) is not dict:
            return Malformed("a line of the results has neither a response nor an error")
        message, code = str(error.get("message") or "no message"), text_of(error, "code")
        kind = _NEVER_RUN.get(code or "")
        if kind is not None:
            return kind(message, code=code)
        found = self.live.error(200, {}, _encode({"error": error}))
        # Whatever is said without a word that is known is the request's own: nothing says that another try helps.
        known = type(found) is not ServerFailed or code in ("server_error", "internal_error")
        return found if known else InvalidRequest(found.message, code=code)
