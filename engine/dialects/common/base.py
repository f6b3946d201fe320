"""The base of client dialects over HTTP: a wire states its differences, and has the rest from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from engine.core.errors import InferenceError, InvalidRequest
from engine.core.request import RateHints
from engine.dialects.client import StreamDecoder, WireCall
from engine.dialects.common.error_body import is_error, request_id
from engine.dialects.common.json_body import reply_json

JSON = "application/json"
EVENTS = "text/event-stream"


class HttpDialect:
    """A wire of JSON over HTTP with a bearer key, whose streams are events, unless a subclass says otherwise."""

    list_path: ClassVar[str]
    """The page that lists the models, below the address."""
    stream_kind: ClassVar[str | None] = EVENTS
    """The content type of a stream; None: the wire has no streams."""
    accept: ClassVar[str] = JSON
    """The content types of a whole reply."""
    typed_error: ClassVar[Callable[[int, Mapping[str, str], bytes, float], InferenceError]]
    """Makes the typed error of a reply: status, headers, body, and the time now in seconds since the epoch."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` gives the time now in seconds since the epoch, for `created` and for retry hints that are dates."""
        self._wall = wall

    def constant_headers(self, stream: bool) -> dict[str, str]:
        accept = f"{self.stream_kind}, {self.accept}" if stream and self.stream_kind else self.accept
        return {"content-type": JSON, "accept": accept}

    def is_stream(self, headers: Mapping[str, str]) -> bool:
        kind = headers.get("content-type", "")
        # A server that names no type, or a general one, may still stream; these two never are one.
        return self.stream_kind is not None and not kind.startswith((JSON, "text/html"))

    def stream_decoder(self, task: str, *, show_usage: bool = True) -> StreamDecoder:
        raise unstreamable(task)

    def error(self, status: int, headers: Mapping[str, str], content: bytes) -> InferenceError:
        return type(self).typed_error(status, headers, content, self._wall())

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def rate_hints(self, headers: Mapping[str, str]) -> RateHints | None:
        return None

    def auth_headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def probe(self) -> WireCall:
        return WireCall("GET", self.list_path, b"")

    def reply_object(self, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        """Returns the JSON object of a reply. Raises an InferenceError for one that is not a success."""
        if status != 200:
            raise self.error(status, headers, content)
        body = reply_json(headers, content)
        if type(body) is not dict or is_error(body):
            raise self.error(status, headers, content)
        return body


def unstreamable(task: str) -> InvalidRequest:
    """Returns the error for a streaming call of a task that has no streams on its wire."""
    return InvalidRequest(f"task: an answer to {task} can't be streamed")
