"""Error bodies, statuses and headers: what mutations of a refused call begin with."""

from __future__ import annotations

from typing import Any

ERRORS: list[Any] = [
    {"error": {"message": "boom", "type": "server_error", "param": None, "code": "x", "details": {"error_code": "y"}}},
    {"error": "boom", "error_type": "validation", "detail": [{"loc": ["body"], "msg": "m"}], "message": "x"},
    [
        {
            "error": {
                "code": 429,
                "message": "x",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "t", "retryDelay": "3s"}],
            }
        }
    ],
    {
        "type": "error",
        "request_id": "r",
        "error": {"type": "overloaded_error", "message": "x", "details": {"error_code": "billing_error"}},
    },
    {
        "error": {
            "code": 400,
            "message": "x",
            "status": "INVALID_ARGUMENT",
            "details": [
                {"reason": "API_KEY_INVALID"},
                {"violations": [{"quotaId": "PerDay"}], "metadata": {"quota_limit": "x"}},
            ],
        }
    },
]
STATUSES = (200, 201, 204, 302, 400, 401, 403, 404, 408, 413, 422, 424, 429, 499, 500, 502, 503, 529, 999)
HEADERS = (
    "retry-after", "retry-after-ms", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens", "x-ratelimit-reset", "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-limit", "content-type", "x-request-id", "x-compute-tokens",
    "inference-header-content-length", "content-encoding",
)  # fmt: skip
HEADER_VALUES = (
    "", "0", "1", "-1", "nan", "inf", "1e400", "9" * 400, "1800000003", "1800000003000", "soon", "6m0s", "\xff",
    "5.5.5", "Wed, 99 Foo 2026 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "0001-01-01T00:00:00Z", "2026-12-01",
    "1,2", "²", "application/json", "text/event-stream", "text/plain; charset=x", "audio/mpeg", "multipart/form-data",
    "a" * 300,
)  # fmt: skip
