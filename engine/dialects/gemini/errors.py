"""The errors of Gemini's wire, in the closed vocabulary.

An error is `{"error": {"code", "message", "status", "details"}}`, alone or as a list of one: a `google.rpc.Status`,
whose details are messages of `google/rpc/error_details.proto` (ErrorInfo, QuotaFailure, RetryInfo). Sources: the Gemini
API's pages "API errors", "Troubleshooting guide" and "Rate limits"; AIP-193; `google/api/error_reason.proto`. What else
may be in a reply, such as a proxy's page, is read as on the OpenAI wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.core.errors import (
    AuthFailed,
    ContentFiltered,
    InferenceError,
    InvalidRequest,
    Malformed,
    Overloaded,
    QuotaExhausted,
    ServerFailed,
    Throttled,
    TimedOut,
    TooLong,
)
from engine.dialects.common.error_body import is_error
from engine.dialects.common.json_body import lenient
from engine.dialects.common.retry_hints import said_s, wait_s
from engine.dialects.openai import errors as openai_errors

_STATUSES: dict[str, type[InferenceError]] = {
    # google.rpc.Code
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "NOT_FOUND": InvalidRequest,
    "ALREADY_EXISTS": InvalidRequest,
    "UNIMPLEMENTED": InvalidRequest,
    "UNAUTHENTICATED": AuthFailed,
    "PERMISSION_DENIED": AuthFailed,
    "RESOURCE_EXHAUSTED": Throttled,
    "ABORTED": ServerFailed,
    "CANCELLED": ServerFailed,
    "DATA_LOSS": ServerFailed,
    "INTERNAL": ServerFailed,
    "UNKNOWN": ServerFailed,
    "UNAVAILABLE": Overloaded,
    "DEADLINE_EXCEEDED": TimedOut,
}
_REASONS: tuple[tuple[str, type[InferenceError]], ...] = (
    # Beginnings of ErrorInfo.reason: an invalid key is a 400 INVALID_ARGUMENT like others.
    ("API_KEY_", AuthFailed),
    ("CONSUMER_", AuthFailed),
    ("SERVICE_DISABLED", AuthFailed),
    ("ACCESS_TOKEN_", AuthFailed),
    ("CREDENTIALS_MISSING", AuthFailed),
    ("USER_PROJECT_DENIED", AuthFailed),
    ("ACCOUNT_STATE_INVALID", AuthFailed),
    ("BILLING_DISABLED", QuotaExhausted),
)
_WORDINGS: tuple[tuple[re.Pattern[str], type[InferenceError]], ...] = (
    (
        re.compile(
            r"token count \(?\d*\)? ?exceeds|exceeds the maximum number of (?:input )?tokens|payload size exceeds",
            re.IGNORECASE,
        ),
        TooLong,
    ),
    # Said with FAILED_PRECONDITION, of the key's project or place, not of the request.
    (re.compile(r"location is not supported|free tier is not available|enable billing", re.IGNORECASE), AuthFailed),
    (re.compile(r"api[ _]key (?:is )?(?:not valid|invalid|expired|not found)", re.IGNORECASE), AuthFailed),
)
FILTERED = frozenset(
    {
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR", "ESCALATION",
    }
)  # fmt: skip
"""Finish reasons that mean: the content was refused."""
FINISH_FAILURES: dict[str, type[InferenceError]] = {
    # The model wrote what its server can't read; another try may do better.
    "MALFORMED_FUNCTION_CALL": Malformed,
    "MALFORMED_RESPONSE": Malformed,
    "UNEXPECTED_TOOL_CALL": Malformed,
    "MISSING_THOUGHT_SIGNATURE": InvalidRequest,
    "OTHER": ServerFailed,
    "FINISH_REASON_UNSPECIFIED": ServerFailed,
    "PUP_LIMITED_DISABLED": AuthFailed,  # The account is limited for what it did before.
}
"""Finish reasons that are failures, whatever came with them."""


def typed_error(status: int, headers: Mapping[str, str], content: bytes, wall_s: float) -> InferenceError:
    """The error for a reply that is not what was requested. Status 2xx: an error body, a block, else Malformed."""
    body = lenient(content)
    if not 300 <= status < 400:
        if is_error(body):
            return error_from(body, status, headers, wall_s)
        if status < 300 and type(body) is dict and type(body.get("promptFeedback")) is dict:
            return blocked(body["promptFeedback"], status)
    return openai_errors.typed_error(status, headers, content, wall_s)


def error_from(body: Any, status: int, headers: Mapping[str, str], wall_s: float) -> InferenceError:
    """The error for a decoded error body."""
    base = openai_errors.error_from(body, status, headers, wall_s)
    if type(body) is list:
        body = body[0]
    error = body.get("error")
    if type(error) is not dict or type(error.get("status")) is not str:
        return base
    word = error["status"]
    details = error.get("details")
    details = [each for each in details if type(each) is dict] if type(details) is list else []
    reasons = [each["reason"] for each in details if type(each.get("reason")) is str]
    kind = _kind(word, reasons, base)
    if kind is Throttled and _spent(details):
        kind = QuotaExhausted
    return kind(
        base.message,
        status=base.status,
        retry_after_s=_hint(details, base, wall_s) if kind.retryable or kind is QuotaExhausted else None,
        provider_request_id=base.provider_request_id,
        code=reasons[0] if reasons else word,
    )


def blocked(feedback: dict[str, Any], status: int | None = 200) -> ContentFiltered:
    """The failure that `promptFeedback` tells of."""
    reason = feedback.get("blockReason")
    why = feedback.get("blockReasonMessage")
    message = f"the provider blocked the prompt: {reason or 'no reason given'}{_rated(feedback)}"
    return ContentFiltered(f"{message}: {why}" if why else message, status=status, code=_code(reason))


def finish_failure(candidate: dict[str, Any]) -> InferenceError:
    """The failure that a candidate's `finishReason` is, of those that are neither an end nor a refused content."""
    reason, why = candidate.get("finishReason"), candidate.get("finishMessage")
    kind = FINISH_FAILURES.get(reason, ServerFailed) if type(reason) is str else Malformed
    message = f"the provider stopped in the middle: finishReason {reason}"
    return kind(f"{message}: {why}" if why else message, status=200, code=_code(reason))


def filtered(candidate: dict[str, Any]) -> ContentFiltered:
    """The failure of an answer of which the filter left nothing."""
    reason, why = candidate.get("finishReason"), candidate.get("finishMessage")
    message = f"the provider's content filter withheld the answer: {reason}{_rated(candidate)}"
    return ContentFiltered(f"{message}: {why}" if why else message, status=200, code=_code(reason))


def _kind(word: str, reasons: list[str], base: InferenceError) -> type[InferenceError]:
    for reason in reasons:
        for start, kind in _REASONS:
            if reason.startswith(start):
                return kind
    if word in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"):
        for pattern, kind in _WORDINGS:
            if pattern.search(base.message):
                return kind
    if base.status == 413:
        return TooLong
    return _STATUSES.get(word, type(base))


def _spent(details: list[dict[str, Any]]) -> bool:
    """Returns True if a quota of the day is used up, or is zero; the message is the same in each case."""
    for detail in details:
        violations = detail.get("violations")
        for violation in violations if type(violations) is list else ():
            if type(violation) is dict and (
                "PerDay" in str(violation.get("quotaId")) or str(violation.get("quotaValue")) == "0"
            ):
                return True
        metadata = detail.get("metadata")
        if type(metadata) is dict and "PerDay" in str(metadata.get("quota_limit")):
            return True
    return False


def _hint(details: list[dict[str, Any]], base: InferenceError, wall_s: float) -> float | None:
    """Seconds to wait: the longest of RetryInfo, which is cut to whole seconds, the headers and the message."""
    delays = [wait_s(each["retryDelay"], wall_s) for each in details if type(each.get("retryDelay")) is str]
    return max((each for each in (*delays, base.retry_after_s, said_s(base.message)) if each is not None), default=None)


def _rated(source: dict[str, Any]) -> str:
    """The safety ratings that blocked, in brackets."""
    ratings = source.get("safetyRatings")
    found = [
        str(rating.get("category"))
        for rating in (ratings if type(ratings) is list else ())
        if type(rating) is dict and rating.get("blocked")
    ]
    return f" ({', '.join(found)})" if found else ""


def _code(reason: Any) -> str | None:
    return reason if type(reason) is str else None
