"""Errors of ours in the words of Gemini's wire.

Source: the Gemini API's page "API errors"; AIP-193.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InferenceError

_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""google.rpc.Code by HTTP status; any other is INTERNAL."""
_BLOCKS = frozenset(("SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"))
_PHRASES = {"too_long": "exceeds the maximum number of tokens"}
"""One status has several kinds; clients tell them apart by these words."""


def wire_error(error: InferenceError) -> tuple[int, dict[str, Any]]:
    """Status and body of an error; the body is also what an event in a stream says.

    Content that was refused is not an error on this wire but a response without candidates, with status 200.
    """
    if error.kind == "content_filtered":
        reason = error.code if error.code in _BLOCKS else "OTHER"
        return 200, {"promptFeedback": {"blockReason": reason, "blockReasonMessage": error.message}}
    status, message = error.status_code, error.message
    phrase = _PHRASES.get(error.kind)
    if phrase is not None and phrase not in message:
        message = f"{message} ({phrase})"
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID" if error.kind == "auth" else error.kind.upper(),
        "domain": "ipfs-accelerate",
    }
    details: list[dict[str, Any]] = [info]
    if error.kind == "quota_exhausted":
        violation = {"quotaId": "RequestsPerDay", "description": error.message}
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    if error.retry_after_s is not None:
        delay = f"{error.retry_after_s:.3f}".rstrip("0").rstrip(".") + "s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    said = {"code": status, "message": message, "status": _WORDS.get(status, "INTERNAL"), "details": details}
    return status, {"error": said}
