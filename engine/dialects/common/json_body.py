"""Reads bytes for every dialect: JSON or a typed error, names of models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InferenceError, InvalidRequest, Malformed
from engine.core.lenient_json import read_again
from engine.core.usage import Usage, token_count
from engine.dialects.common.error_body import excerpt, request_id

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""The errors that decoding JSON of any form may raise."""


def lenient(content: bytes) -> Any:
    """The JSON of a reply or an event, read again leniently if it is not strict; None if it is not JSON."""
    try:
        return _decode(content)
    except UNREADABLE:
        pass
    try:
        return read_again(content)[0]
    except ValueError:
        return None


def mended(content: bytes) -> tuple[bytes, list[str]] | None:
    """A reply as strict JSON, and the changes in words; None if it needs no change, or is not JSON."""
    try:
        value, changes = read_again(content)
    except ValueError:
        return None
    return (_encode(value), changes) if changes else None


def reply_json(headers: Mapping[str, str], content: bytes) -> Any:
    """The JSON of a reply that says it is a success. Raises Malformed."""
    try:
        return _decode(content)
    except UNREADABLE as error:
        raise malformed(f"the body is not JSON ({error})", headers, content) from error


def malformed(what: str, headers: Mapping[str, str], content: bytes) -> Malformed:
    """Returns the error for a status of success without a reply, with the beginning of the body."""
    message = f"HTTP 200: {what}: {excerpt(content)}"
    return Malformed(message, status=200, provider_request_id=request_id(headers))


def asked_json(content: bytes) -> dict[str, Any]:
    """The JSON object of a client's request. Raises InvalidRequest."""
    try:
        body = _decode(content)
    except UNREADABLE as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if type(body) is not dict:
        raise InvalidRequest("the body is not a JSON object")
    return body


def written(body: Any) -> bytes:
    """The JSON of a request. Raises InvalidRequest for what JSON can't say."""
    try:
        return _encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"body: can't be written as JSON: {error}") from error


def count(value: Any) -> int:
    """A number of tokens; what is not a count is 0."""
    return token_count(value)


def positive(value: Any) -> int | None:
    """Returns a server's limit; None if the value is not a limit."""
    return value if type(value) is int and value > 0 else None


def usage_body(usage: Usage) -> dict[str, Any]:
    """The canonical usage object of a chat or completion whose wire has counts of its own."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def retry_after(error: InferenceError) -> dict[str, str]:
    """The header that tells a client when to come back, where that is known: whole seconds."""
    return {} if error.retry_after_s is None else {"retry-after": str(math.ceil(error.retry_after_s))}


def names(entries: Any, *fields: str) -> list[str]:
    """The names in a list of objects, each under the first of `fields` that holds one."""
    if type(entries) is not list:
        return []
    found = [
        next((entry[each] for each in fields if entry.get(each)), None) for entry in entries if type(entry) is dict
    ]
    return [name for name in found if type(name) is str]
