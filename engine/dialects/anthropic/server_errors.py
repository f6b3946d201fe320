"""Errors of ours in the words of Anthropic's wire.

Source: Anthropic's API reference, "Errors".
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InferenceError

_TYPES = {
    # kind → status where it differs from the error's own, and type
    "throttled": (429, "rate_limit_error"),
    "quota_exhausted": (402, "billing_error"),
    "auth": (401, "authentication_error"),
    "invalid_request": (400, "invalid_request_error"),
    "too_long": (400, "invalid_request_error"),
    "content_filtered": (400, "invalid_request_error"),
    "overloaded": (529, "overloaded_error"),
    "circuit_open": (529, "overloaded_error"),
    "queue_full": (529, "overloaded_error"),
    "timeout": (504, "timeout_error"),
    "deadline": (504, "timeout_error"),
}
"""Status and type by kind; any other is an `api_error`."""
_WORDS = {
    # One type has three kinds; clients tell them apart by these words.
    "too_long": "prompt is too long",
    "content_filtered": "output blocked by content filtering policy",
}


def wire_error(error: InferenceError) -> tuple[int, dict[str, Any]]:
    """Status and body of an error; the body is also what an `error` event says."""
    status, kind = _TYPES.get(error.kind, (error.status_code, "api_error"))
    words, message = _WORDS.get(error.kind), error.message
    if words is not None and words not in message.lower():
        message = f"{words}: {message}"
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    if error.provider_request_id is not None:
        body["request_id"] = error.provider_request_id
    return status, body
