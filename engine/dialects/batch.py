"""Wire protocols of batch APIs: pure functions of bytes, no I/O. One file a protocol, `*_batch.py`.

A job goes through four steps: its requests are put together, possibly uploaded, the job is created, and polled
until it has ended; then its results are read, a line a request, in any order.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from engine.core.errors import InferenceError, Malformed
from engine.dialects.client import Dialect, WireCall
from engine.dialects.common.error_body import excerpt
from engine.dialects.common.json_body import UNREADABLE, lenient

RUNNING, ENDED, FAILED = "running", "ended", "failed"
_PENDING = frozenset(("pending", "running", "processing", "uploading", "notstarted", "queued", "inprogress"))
_SETTLED = frozenset(("processed", "active", "succeeded", "error", "failed", "deleted", "cancelled"))
"""States of an uploaded file, at OpenAI, Azure and Gemini. `uploaded` says nothing: some never say another word."""
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class BatchCall(WireCall):
    """A call of a batch API."""

    base: Literal["api", "upload", "download", "origin"] = "api"
    """The address that the path is joined to: provider.base_url; Google's upload and download addresses, which are that
    with `/upload` or `/download` before its path; or scheme and host alone."""


@dataclass(slots=True)
class Heard:
    """The reply to such a call. `headers` are requested lower-case names."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(slots=True)
class JobRequest:
    """The content of a job."""

    tag: str
    """Ours, unique, put where the provider shows it again: letters, digits, - and _."""
    task: str
    model: str
    window: str
    """The time that the provider has, such as 24h."""
    lines: list[bytes]
    """From `member`, one a request."""


@dataclass(slots=True)
class JobView:
    """A job as the provider shows it."""

    id: str
    state: Literal["running", "ended", "failed"]
    """failed: as a whole, `error` says why; ended: there may be results, possibly not for all."""
    said: str
    """The provider's own word for its state."""
    tag: str | None = None
    """None: this API keeps no tag of ours."""
    input_file: str | None = None
    created_s: float | None = None
    """Seconds since 1970."""
    total: int = 0
    done: int = 0
    """Answered so far; 0 where the provider does not say before the end."""
    failed: int = 0
    error: InferenceError | None = None
    bad_lines: dict[int, InferenceError] = field(default_factory=dict)
    """Of a job that failed: the lines that are to blame, counted from 1."""
    files: tuple[str, ...] = ()
    """The places of its results; for `results`."""
    inline: list[bytes] = field(default_factory=list)
    """Results that came with the view, as lines."""


@dataclass(slots=True)
class Member:
    """One line of a job's results."""

    custom_id: str | None
    """None: the provider did not repeat it; the place among the results tells which request it answers."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    """The reply as a live call would have brought it, for `Dialect.decode`."""
    error: InferenceError | None = None
    """The reason for no reply."""


class BatchDialect(Protocol):
    """A batch API. Made with `cls(dialect)`: the live dialect of the same provider, which knows its errors."""

    live: Dialect
    """The dialect of the same provider's live calls."""
    anonymous: bool
    """Its jobs carry no tag: only their results show whose they are."""
    ordered: bool
    """Its results are in the order of the requests: one without an id belongs to the request in its place."""

    def __init__(self, dialect: Dialect) -> None: ...

    def takes(self, task: str, wire: WireCall) -> bool:
        """Returns True if a request of this form can go into a job."""
        ...

    def member(self, custom_id: str, task: str, wire: WireCall) -> bytes:
        """A request as a line of a job."""
        ...

    def upload(self, job: JobRequest) -> Generator[BatchCall, Heard, str | None]:
        """The calls before `create`, each answered with what was heard; returns the id of the file of requests, None
        where none is needed. Raises InferenceError."""
        ...

    def create(self, job: JobRequest, file: str | None) -> BatchCall: ...

    def file(self, id: str) -> BatchCall | None:
        """The call for the state of the file of requests, which `file_pending` reads; None if the API has no files."""
        ...

    def poll(self, id: str) -> BatchCall: ...

    def view(self, heard: Heard) -> JobView:
        """From the reply to `create`, `poll` and, where it has one, `cancel`. Raises InferenceError."""
        ...

    def listing(self, cursor: str | None = None) -> BatchCall:
        """The call for a page of the jobs of this key, the newest first."""
        ...

    def listed(self, heard: Heard) -> tuple[list[JobView], str | None]:
        """The jobs of a page, and where the next one begins. Raises InferenceError."""
        ...

    def results(self, view: JobView, file: str) -> BatchCall:
        """The call for one of `view.files`, whose lines `read` understands."""
        ...

    def read(self, line: bytes, place: int) -> Member:
        """A line of results, counted from 0. Raises Malformed."""
        ...

    def cancel(self, id: str) -> BatchCall: ...


def object_of(heard: Heard, dialect: Dialect, good: Sequence[int] = (200, 201)) -> dict[str, Any]:
    """The decoded object of a reply that is a success. Raises an InferenceError."""
    if heard.status not in good:
        raise dialect.error(heard.status, heard.headers, heard.content)
    try:
        body = _decode(heard.content)
    except UNREADABLE as error:
        raise Malformed(
            f"HTTP {heard.status}: the body is not JSON ({error}): {excerpt(heard.content)}", status=heard.status
        ) from error
    if type(body) is not dict:
        raise dialect.error(heard.status, heard.headers, heard.content)
    return body


def line_of(line: bytes) -> dict[str, Any]:
    """The object of a line of results. Raises Malformed."""
    body = lenient(line)
    if body is None:
        raise Malformed(f"a line of the results is not JSON: {excerpt(line)}")
    if type(body) is not dict:
        raise Malformed(f"a line of the results is not an object: {excerpt(line)}")
    return body


def file_pending(heard: Heard) -> bool | None:
    """True while the provider works on an uploaded file, False afterwards; None if the reply does not say it."""
    try:
        body = _decode(heard.content)
    except UNREADABLE:
        return None
    if heard.status != 200 or type(body) is not dict:
        return None
    inner = body.get("file")
    said = text_of(body, "status") or text_of(body, "state") or (text_of(inner, "state") if type(inner) is dict else "")
    word = (said or "").lower().replace("_", "")
    return True if word in _PENDING else False if word in _SETTLED else None


def text_of(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if type(value) is str and value else None


def count_of(body: Any, name: str) -> int:
    """A count, also one that is written as text (int64 in Google's JSON)."""
    value = body.get(name) if type(body) is dict else None
    if type(value) is str and value.isdigit():
        return int(value)
    return value if type(value) is int and value > 0 else 0


def seconds_of(iso: str | None) -> float | None:
    """An RFC 3339 time in seconds since 1970; None: none."""
    if iso is None:
        return None
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return None
