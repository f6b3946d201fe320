"""The boundary of a dialect: what another's bytes raise while they are read becomes a typed error.

A field may have any type, whatever its documentation has. Each reader is right for the documented types, and this is
its net: a defect of what came is `malformed`, or `invalid_request` for a client's request, never `internal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from engine.core.errors import InvalidRequest, Malformed
from engine.dialects.common.error_body import excerpt, request_id

if TYPE_CHECKING:
    from engine.dialects.client import Reply, WireCall
    from engine.dialects.server import ClientCall

D = TypeVar("D", bound="Callable[..., Reply]")
C = TypeVar("C", bound="Callable[..., WireCall]")
R = TypeVar("R", bound="Callable[..., ClientCall]")
W = TypeVar("W", bound=Callable[..., bytes])

DEFECTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
)
"""Errors that a field of another type or form than documented may cause."""


def odd_reply(error: Exception, status: int, headers: Mapping[str, str], content: bytes) -> Malformed:
    """The error for a reply that can't be read, with the beginning of its body."""
    return Malformed(
        f"HTTP {status}: the reply is not as documented ({_cause(error)}): {excerpt(content)}",
        status=status,
        provider_request_id=request_id(headers),
    )


def odd_event(error: Exception, payload: bytes) -> Malformed:
    """The error for an event of a stream that can't be read."""
    return Malformed(f"the stream has an event that is not as documented ({_cause(error)}): {excerpt(payload)}")


def reads_reply(decode: D) -> D:
    """Makes a dialect's `decode` raise nothing but InferenceErrors."""

    @wraps(decode)
    def bounded(dialect: Any, task: str, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        try:
            return decode(dialect, task, status, headers, content)
        except DEFECTS as error:
            raise odd_reply(error, status, headers, content) from error

    return cast(D, bounded)


def writes_request(encode: C) -> C:
    """Makes a dialect's `encode` raise nothing but InferenceErrors: a request's field may have any type, too."""

    @wraps(encode)
    def bounded(dialect: Any, task: str, body: dict[str, Any], **options: Any) -> WireCall:
        try:
            return encode(dialect, task, body, **options)
        except DEFECTS as error:
            raise InvalidRequest(f"body: a field has another type than its wire takes ({_cause(error)})") from error

    return cast(C, bounded)


def reads_request(read: R) -> R:
    """Makes a server dialect's `read` raise nothing but InferenceErrors."""

    @wraps(read)
    def bounded(
        dialect: Any, path: str, parts: Mapping[str, str], headers: Mapping[str, str], content: bytes
    ) -> ClientCall:
        try:
            return read(dialect, path, parts, headers, content)
        except DEFECTS as error:
            raise InvalidRequest(f"the request is not as documented ({_cause(error)})") from error

    return cast(R, bounded)


def writes(write: W) -> W:
    """Makes what a server dialect writes for a client, a reply or a part of a stream, raise nothing but
    InferenceErrors: the answer of a provider may hold fields of any type."""

    @wraps(write)
    def bounded(*arguments: Any) -> bytes:
        try:
            return write(*arguments)
        except DEFECTS as error:
            raise Malformed(f"the answer can't be written on this client's wire ({_cause(error)})") from error

    return cast(W, bounded)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
