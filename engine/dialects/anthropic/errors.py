"""The errors of Anthropic's wire in the closed vocabulary, and the limits in its headers.

Its error object is `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`. Gateways and servers
that speak its wire send other envelopes too, so the reading is shared with the OpenAI wire; here is what only
Anthropic says.
Source: Anthropic's API reference, "Errors" and "Rate limits", and the types of its Python SDK 2.12 (`ErrorDetails`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.core.errors import AuthFailed, ContentFiltered, InferenceError, QuotaExhausted, Throttled, TooLong
from engine.core.request import RateHints
from engine.dialects.common.json_body import lenient
from engine.dialects.common.retry_hints import limit_of, wait_s
from engine.dialects.openai import errors as openai_errors

_PREFIX = "anthropic-ratelimit-"
_UNITS = ("requests", "tokens", "input-tokens", "output-tokens")
_CODES: dict[str, type[InferenceError]] = {
    # `error.details.error_code`, the stable name of the cause, and `error.type`.
    "billing_error": QuotaExhausted,
    "contract_spend_limit_reached": QuotaExhausted,
    "enforced_spend_limit_reached": QuotaExhausted,
    "linked_organization_spend_limit_reached": QuotaExhausted,
    "linked_organization_billing_unavailable": QuotaExhausted,
    "user_profile_not_billable": QuotaExhausted,
    "ramp_limit_exceeded": Throttled,
    "organization_on_hold": AuthFailed,
    "claude_code_key_creator_not_member": AuthFailed,
    "request_body_too_large_after_decoding": TooLong,
}
_WORDINGS: tuple[tuple[re.Pattern[str], type[InferenceError]], ...] = (
    # Said with status 400 and type invalid_request_error, which alone would mean a defect of the request.
    (re.compile(r"exceed(?:s)? (?:the )?context (?:limit|window)|prompt is too long", re.IGNORECASE), TooLong),
    (
        re.compile(r"credit balance is too low|reached your specified .{0,40}usage limits", re.IGNORECASE),
        QuotaExhausted,
    ),
    (re.compile(r"content filter(?:ing)? policy|output blocked by", re.IGNORECASE), ContentFiltered),
    (re.compile(r"organization has been disabled", re.IGNORECASE), AuthFailed),
)
_SURE = (Throttled, QuotaExhausted, AuthFailed)
"""The kinds of statuses that leave no doubt; a wording never overrides them."""


def typed_error(status: int, headers: Mapping[str, str], content: bytes, wall_s: float) -> InferenceError:
    """The error for a reply that is not what was requested. Status 2xx: an error body, else Malformed."""
    error = openai_errors.typed_error(status, headers, content, wall_s)
    body = lenient(content) if b'"error"' in content else None
    return _refined(error, body, headers, wall_s)


def error_from(body: Any, wall_s: float) -> InferenceError:
    """The error for the decoded `error` event of a stream."""
    return _refined(openai_errors.error_from(body, 200, {}, wall_s), body, {}, wall_s)


def rate_hints(headers: Mapping[str, str], wall_s: float) -> RateHints | None:
    """Returns what `anthropic-ratelimit-*` say; None: nothing."""
    if _PREFIX + "requests-limit" not in headers and _PREFIX + "tokens-limit" not in headers:
        return None
    said = [_limit(headers, unit, wall_s) for unit in _UNITS]
    return RateHints(*said) if any(said) else None


def _refined(error: InferenceError, body: Any, headers: Mapping[str, str], wall_s: float) -> InferenceError:
    """The error as only this wire's words say it."""
    code, request_id = _details(body)
    kind = _CODES.get(code or error.code or "")
    if kind is None and not isinstance(error, _SURE):
        kind = next((said for pattern, said in _WORDINGS if pattern.search(error.message)), None)
    kind = kind or type(error)
    hint = error.retry_after_s
    if hint is None and kind in (Throttled, QuotaExhausted):
        hint = _reset_s(headers, wall_s)
    return kind(
        error.message,
        status=error.status,
        retry_after_s=hint,
        provider_request_id=error.provider_request_id or request_id,
        code=code or error.code,
    )


def _details(body: Any) -> tuple[str | None, str | None]:
    """The stable code of the cause, and the request's id, where a body says them."""
    if type(body) is not dict:
        return None, None
    error, request_id = body.get("error"), body.get("request_id")
    details = error.get("details") if type(error) is dict else None
    code = details.get("error_code") if type(details) is dict else None
    return (code if type(code) is str else None), (request_id if type(request_id) is str else None)


def _reset_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Seconds until the limits that are used up are whole again; of all limits, where none says so."""
    used_up: list[float] = []
    others: list[float] = []
    for unit in _UNITS:
        reset = wait_s(headers.get(f"{_PREFIX}{unit}-reset"), wall_s)
        if reset is not None:
            (used_up if headers.get(f"{_PREFIX}{unit}-remaining") == "0" else others).append(reset)
    return max(used_up or others, default=None)


def _limit(headers: Mapping[str, str], unit: str, wall_s: float) -> tuple[float, float, float] | None:
    said = [headers.get(f"{_PREFIX}{unit}-{part}") for part in ("limit", "remaining", "reset")]
    return limit_of(said[0], said[1], said[2], wall_s)
