"""Anthropic's error bodies and headers, as its API reference has them ("Errors", "Rate limits")."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError
from engine.core.request import RateHints
from engine.dialects.anthropic.client import AnthropicDialect

NOON_S = 1_790_000_000.0
"""2026-09-21T14:13:20Z"""


def body(kind: str, message: str = "It went wrong.", **error: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **error}, "request_id": "req_011CSHoEeqs"}


def said(status: int, content: Any, headers: dict[str, str] | None = None) -> InferenceError:
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return AnthropicDialect(lambda: NOON_S).error(status, headers or {}, data)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "invalid_request_error", "invalid_request"),
        (401, "authentication_error", "auth"),
        (402, "billing_error", "quota_exhausted"),
        (403, "permission_error", "auth"),
        (404, "not_found_error", "invalid_request"),
        (413, "request_too_large", "too_long"),
        (429, "rate_limit_error", "throttled"),
        (500, "api_error", "server"),
        (504, "timeout_error", "timeout"),
        (529, "overloaded_error", "overloaded"),
    ],
)
def test_each_documented_error_has_its_word(status: int, name: str, kind: str) -> None:
    failure = said(status, body(name))
    assert (failure.kind, failure.status, failure.code) == (kind, status, name)
    assert failure.message.startswith(f"HTTP {status}: It went wrong.")
    assert failure.provider_request_id == "req_011CSHoEeqs"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "prompt is too long: 210012 tokens > 200000 maximum", "too_long"),
        (400, "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", "too_long"),
        (400, "Your credit balance is too low to access the Anthropic API.", "quota_exhausted"),
        (400, "You have reached your specified API usage limits. You will regain access on …", "quota_exhausted"),
        (400, "You have reached your specified workspace API usage limits.", "quota_exhausted"),
        (400, "Output blocked by content filtering policy", "content_filtered"),
        (400, "This organization has been disabled.", "auth"),
        (400, "This model does not support assistant message prefill.", "invalid_request"),
        (
            429,
            "This request would exceed your organization's rate limit of 50,000 input tokens per minute",
            "throttled",
        ),
    ],
)
def test_a_wording_says_more_than_the_status(status: int, message: str, kind: str) -> None:
    assert said(status, body("rate_limit_error" if status == 429 else "invalid_request_error", message)).kind == kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("enforced_spend_limit_reached", "quota_exhausted"),
        ("ramp_limit_exceeded", "throttled"),
        ("organization_on_hold", "auth"),
        ("request_body_too_large_after_decoding", "too_long"),
    ],
)
def test_the_stable_code_of_a_cause_is_heard_and_kept(code: str, kind: str) -> None:
    failure = said(400, body("invalid_request_error", details={"error_code": code}))
    assert (failure.kind, failure.code) == (kind, code)


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after-ms": "1500"}, 1.5),
        (
            {
                "anthropic-ratelimit-requests-remaining": "12",
                "anthropic-ratelimit-requests-reset": "2026-09-21T14:14:20Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:13:50Z",
            },
            30.0,
        ),
        ({"anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:25Z"}, 5.0),
        ({"anthropic-ratelimit-tokens-reset": "2020-01-01T00:00:00Z"}, 0.0),
        ({"anthropic-ratelimit-tokens-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_a_throttled_call_says_when_to_come_back(headers: dict[str, str], hint: float | None) -> None:
    assert said(429, body("rate_limit_error"), headers).retry_after_s == hint


def test_the_resets_that_come_with_every_reply_are_no_hint_for_another_failure() -> None:
    headers = {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:50Z"}
    assert said(500, body("api_error"), headers).retry_after_s is None


def test_the_headers_say_all_four_limits() -> None:
    headers: dict[str, str] = {}
    for unit, limit in (("requests", 50), ("tokens", 90), ("input-tokens", 70), ("output-tokens", 20)):
        headers |= {
            f"anthropic-ratelimit-{unit}-limit": str(limit),
            f"anthropic-ratelimit-{unit}-remaining": str(limit - 1),
            f"anthropic-ratelimit-{unit}-reset": "2026-09-21T14:13:30Z",
        }
    hints = AnthropicDialect(lambda: NOON_S).rate_hints(headers)
    assert hints == RateHints((50, 49, 10), (90, 89, 10), (70, 69, 10), (20, 19, 10))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"anthropic-ratelimit-requests-limit": "50"},
        {
            "anthropic-ratelimit-requests-limit": "many",
            "anthropic-ratelimit-requests-remaining": "1",
            "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:30Z",
        },
    ],
)
def test_headers_that_say_no_whole_limit_are_no_hints(headers: dict[str, str]) -> None:
    assert AnthropicDialect(lambda: NOON_S).rate_hints(headers) is None


def test_the_header_names_the_request_where_the_body_does_not() -> None:
    assert said(500, b"oops", {"request-id": "req_2"}).provider_request_id == "req_2"


@pytest.mark.parametrize("content", [b"", b"{", b'{"error":7}', b'{"error":{"details":[]}}', b"[]", b"null"])
def test_a_body_that_is_no_error_object_still_has_its_word(content: bytes) -> None:
    assert said(529, content).kind == "overloaded"


def test_a_page_of_a_proxy_is_told_by_its_title() -> None:
    assert "502: Bad gateway" in said(502, b"<html><title>502: Bad gateway</title></html>").message
