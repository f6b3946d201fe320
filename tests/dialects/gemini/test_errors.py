"""Errors of Gemini, as its page "API errors" and reports of its users have them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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
from engine.dialects.gemini.client import GeminiDialect

INVALID_KEY = {
    "error": {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        ],
    }
}


def exhausted(quota: str, delay: str | None = "36s", value: str = "20", text: str = "") -> dict[str, Any]:
    """Of the page "Rate limits" and of what is seen: the message is the same for a minute's quota and a day's."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": quota,
        "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
        "quotaValue": value,
    }
    details: list[dict[str, Any]] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "x", "url": "y"}]},
    ]
    if delay is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    message = f"You exceeded your current quota, please check your plan and billing details.{text}"
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}


def error(status: int, body: Any = None, headers: dict[str, str] | None = None) -> InferenceError:
    content = body if type(body) is bytes else msgspec.json.encode(body)
    return GeminiDialect(lambda: 0.0).error(status, headers or {}, content)


def plain(code: int, status: str, message: str = "It went wrong.") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (400, "INVALID_ARGUMENT", InvalidRequest),
        (400, "FAILED_PRECONDITION", InvalidRequest),
        (401, "UNAUTHENTICATED", AuthFailed),
        (403, "PERMISSION_DENIED", AuthFailed),
        (404, "NOT_FOUND", InvalidRequest),
        (409, "ABORTED", ServerFailed),
        (429, "RESOURCE_EXHAUSTED", Throttled),
        (499, "CANCELLED", ServerFailed),
        (500, "INTERNAL", ServerFailed),
        (500, "UNKNOWN", ServerFailed),
        (501, "UNIMPLEMENTED", InvalidRequest),
        (503, "UNAVAILABLE", Overloaded),
        (504, "DEADLINE_EXCEEDED", TimedOut),
    ],
)
@pytest.mark.parametrize("envelope", [lambda body: body, lambda body: [body]])
def test_a_status_has_its_kind(code: int, status: str, kind: type[InferenceError], envelope: Any) -> None:
    found = error(code, envelope(plain(code, status)))
    assert (type(found), found.status, found.code) == (kind, code, status)
    assert "It went wrong." in found.message


def test_an_invalid_key_is_told_by_its_reason() -> None:
    found = error(400, INVALID_KEY)
    assert (type(found), found.code) == (AuthFailed, "API_KEY_INVALID")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "The input token count (34) exceeds the maximum number of tokens allowed (10).", TooLong),
        ("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.", TooLong),
        ("INVALID_ARGUMENT", "API key expired. Please renew the API key.", AuthFailed),
        ("FAILED_PRECONDITION", "User location is not supported for the API use.", AuthFailed),
        ("INVALID_ARGUMENT", "Unable to process input image.", InvalidRequest),
        ("INVALID_ARGUMENT", "Requests ending with a model turn are not supported.", InvalidRequest),
    ],
)
def test_the_words_say_what_the_status_does_not(status: str, message: str, kind: type[InferenceError]) -> None:
    assert type(error(400, plain(400, status, message))) is kind


def test_a_model_that_is_not_there_tells_the_next_step() -> None:
    assert "check model.name" in error(404, plain(404, "NOT_FOUND", "models/x is not found")).message


def test_a_minutes_quota_is_a_throttle_with_its_hint() -> None:
    found = error(429, exhausted("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"))
    assert (type(found), found.retry_after_s) == (Throttled, 36)


def test_a_days_quota_parks_the_key() -> None:
    found = error(429, exhausted("GenerateRequestsPerDayPerProjectPerModel-FreeTier"))
    assert (type(found), found.retry_after_s) == (QuotaExhausted, 36)


def test_a_quota_of_nothing_parks_the_key() -> None:
    found = error(429, exhausted("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", None, "0"))
    assert (type(found), found.retry_after_s) == (QuotaExhausted, None)


@pytest.mark.parametrize(
    ("delay", "text", "headers", "seconds"),
    [
        ("36s", "", {}, 36),
        ("36s", "\nPlease retry in 36.429760048s.", {}, 36.429760048),
        ("0.25s", "", {}, 0.25),
        (None, "\nPlease retry in 5s.", {}, 5),
        (None, "", {"retry-after": "7"}, 7),
        ("soon", "", {}, None),
        ("3s", "", {"retry-after": "7"}, 7),
    ],
)
def test_the_longest_hint_counts(delay: str | None, text: str, headers: dict[str, str], seconds: float | None) -> None:
    assert error(429, exhausted("PerMinute", delay, text=text), headers).retry_after_s == seconds


def test_a_hint_is_no_use_where_no_retry_is() -> None:
    body = plain(400, "INVALID_ARGUMENT")
    body["error"]["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}]
    assert error(400, body).retry_after_s is None


def test_a_200_that_carries_an_error_is_one() -> None:
    with pytest.raises(Throttled) as caught:
        GeminiDialect().decode("chat", 200, {}, msgspec.json.encode(plain(429, "RESOURCE_EXHAUSTED")))
    assert caught.value.status == 429


def test_a_whole_reply_to_a_stream_that_is_a_block_is_content_filtered() -> None:
    assert type(error(200, {"promptFeedback": {"blockReason": "SAFETY"}})) is ContentFiltered


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html><title>Hi</title></html>", Malformed),
        (200, b"{}", Malformed),
        (302, b"", InvalidRequest),
        (302, b'{"error": {"code": 302, "status": "X", "message": "moved"}}', InvalidRequest),
        (413, b"<html><title>413</title></html>", TooLong),
        (502, b"<html><title>502 Bad Gateway</title></html>", ServerFailed),
        (503, b"", Overloaded),
        (429, b'{"error": "slow down"}', Throttled),
        (429, b'{"error": {"message": "slow down"}}', Throttled),
        (500, b'{"error": {"status": "INTERNAL", "details": 7}}', ServerFailed),
        (429, b'{"error": {"status": "RESOURCE_EXHAUSTED", "details": [7, {"violations": [7]}]}}', Throttled),
        (400, b"[" * 100_000, InvalidRequest),
        (400, b"\xff", InvalidRequest),
    ],
)
def test_anything_else_is_a_typed_error_too(status: int, body: bytes, kind: type[InferenceError]) -> None:
    assert type(error(status, body)) is kind
