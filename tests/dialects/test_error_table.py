"""How every provider says what went wrong and when to come back: rows from their pages, in the closed vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import msgspec
import pytest

from engine.core.registry import DIALECTS

NOW = 1_800_000_000.0


@dataclass
class Row:
    """One refusal as it is documented."""

    page: str
    """Where it is documented."""
    dialect: str
    status: int
    body: Any
    kind: str
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float | None = None
    """The hint that must be found."""


def openai(message: str, code: str | None = None, type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


def anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def gemini(status: int, word: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": word, "details": list(details)}}


def quota(id: str, value: str) -> dict[str, Any]:
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    violation = {"quotaMetric": metric, "quotaId": id, "quotaValue": value}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}
OPENAI_429 = "help.openai.com, Troubleshooting API rate limits and 429 errors"
OPENAI_LIMITS = "developers.openai.com, Rate limits (headers)"
OPENAI_CODES = "developers.openai.com, Error codes"
AZURE = "learn.microsoft.com, Azure OpenAI quotas and limits"
GROQ = "console.groq.com/docs/errors"
GROQ_LIMITS = "console.groq.com/docs/rate-limits"
CLAUDE = "platform.claude.com, Errors"
CLAUDE_LIMITS = "platform.claude.com, Rate limits (response headers)"
GEMINI = "ai.google.dev, Troubleshooting guide"
GEMINI_LIMITS = "ai.google.dev, Rate limits; google/rpc/error_details.proto"
MISTRAL = "docs.mistral.ai, Rate limits"
TOGETHER = "docs.together.ai/docs/error-codes"
FIREWORKS = "docs.fireworks.ai/guides/inference-error-codes"
COHERE = "docs.cohere.com, Errors"
CEREBRAS = "inference-docs.cerebras.ai/support/rate-limits"
OPENROUTER = "openrouter.ai/docs, Errors; Limits"
XAI = "docs.x.ai, Debugging errors"
DEEPSEEK = "api-docs.deepseek.com/quick_start/error_codes"
VLLM = "vllm/entrypoints/openai/protocol.py, ErrorResponse"
LLAMA = "llama.cpp, tools/server/README.md"
TGI = "huggingface.co, Text Generation Inference, openapi.json (429: overloaded)"
TEI = "huggingface.co, Text Embeddings Inference, openapi.json"
OLLAMA = "ollama, server/sched.go, server/routes.go"
QUOTA = "You exceeded your current quota, please check your plan and billing details."

ROWS = [
    Row(
        OPENAI_429,
        "openai",
        429,
        openai("Rate limit reached for gpt-4o. Please try again in 20ms.", "rate_limit_exceeded", "tokens"),
        "throttled",
        wait_s=0.02,
    ),
    Row(OPENAI_429, "openai", 429, openai(QUOTA, "insufficient_quota", "insufficient_quota"), "quota_exhausted"),
    Row(
        OPENAI_429,
        "openai",
        429,
        openai("No credits.", "credit_balance_exhausted", "insufficient_quota"),
        "quota_exhausted",
    ),
    Row(OPENAI_429, "openai", 429, openai("Usage limit.", "organization_usage_limit_exceeded"), "quota_exhausted"),
    Row(OPENAI_429, "openai", 429, openai("Spend limit.", "organization_spend_limit_exceeded"), "quota_exhausted"),
    Row(OPENAI_429, "openai", 429, openai("Spend limit.", "project_spend_limit_exceeded"), "quota_exhausted"),
    Row(
        OPENAI_LIMITS,
        "openai",
        429,
        openai("Rate limit reached", "rate_limit_exceeded", "requests"),
        "throttled",
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m12s",
            "x-ratelimit-remaining-tokens": "9",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        72,
    ),
    Row(OPENAI_CODES, "openai", 503, openai("Slow down", "slow_down"), "overloaded", {"retry-after": "9"}, 9),
    Row(
        OPENAI_CODES,
        "openai",
        503,
        openai("Overloaded.", "server_is_overloaded", "service_unavailable_error"),
        "overloaded",
    ),
    Row(
        OPENAI_CODES,
        "openai",
        200,
        openai("Overloaded.", "server_is_overloaded", "service_unavailable_error"),
        "overloaded",
    ),
    Row(OPENAI_CODES, "openai", 401, openai("Incorrect API key provided: sk-…", "invalid_api_key"), "auth"),
    Row(
        AZURE,
        "openai",
        429,
        openai(
            "Requests have exceeded token rate limit of your pricing tier. Please retry after 37 seconds.",
            "429",
        ),
        "throttled",
        wait_s=37,
    ),
    Row(
        AZURE,
        "openai",
        429,
        openai("Too many requests", "429"),
        "throttled",
        {"retry-after-ms": "2513", "retry-after": "2"},
        2.513,
    ),
    Row(AZURE, "openai", 400, openai("The response was filtered", "content_filter"), "content_filtered"),
    Row(
        GROQ,
        "openai",
        429,
        openai(
            "Rate limit reached for model `m` on tokens per minute (TPM). Please try again in 7.66s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        "throttled",
        wait_s=7.66,
    ),
    Row(
        GROQ_LIMITS,
        "openai",
        429,
        openai("Rate limit reached", "rate_limit_exceeded"),
        "throttled",
        {"retry-after": "2"},
        2,
    ),
    Row(GROQ, "openai", 498, openai("Flex tier capacity exceeded"), "overloaded"),
    Row(
        "console.groq.com/docs/spend-limits", "openai", 400, openai("Blocked", "blocked_api_access"), "quota_exhausted"
    ),
    Row(
        "console.groq.com/docs/tool-use",
        "openai",
        400,
        openai("Failed to call a function. Please adjust your prompt.", "tool_use_failed", "invalid_request_error"),
        "malformed",
    ),
    Row(
        "console.groq.com/docs/structured-outputs",
        "openai",
        400,
        openai("Failed to validate JSON.", "json_validate_failed", "invalid_request_error"),
        "malformed",
    ),
    Row(
        MISTRAL,
        "openai",
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
            "raw_status_code": 429,
        },
        "throttled",
    ),
    Row(
        "github.com/continuedev/continue/issues/6185",
        "openai",
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
        "overloaded",
    ),
    Row(
        TOGETHER,
        "openai",
        402,
        {"error": {"message": "Reached its maximum allowed monthly spending limit"}},
        "quota_exhausted",
    ),
    Row(
        TOGETHER,
        "openai",
        403,
        {
            "error": {
                "message": "Input token count + max_tokens parameter must be less than the context length of the model."
            }
        },
        "too_long",
    ),
    Row(
        TOGETHER, "openai", 429, {"error": {"message": "Too many requests"}}, "throttled", {"x-ratelimit-reset": "3"}, 3
    ),
    Row(TOGETHER, "openai", 503, {"error": {"message": "Engine Overloaded"}}, "overloaded"),
    Row(
        FIREWORKS,
        "openai",
        412,
        {
            "error": {
                "message": "Account my-account is suspended, possibly due to a failure to pay past invoices.",
                "code": "PRECONDITION_FAILED",
            }
        },
        "quota_exhausted",
    ),
    Row(FIREWORKS, "openai", 402, {"error": {"message": "Payment Required"}}, "quota_exhausted"),
    Row(
        COHERE,
        "openai",
        429,
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
        "quota_exhausted",
    ),
    Row(
        COHERE,
        "openai",
        429,
        {"message": "You are using a Trial key, which is limited to 40 API calls / minute."},
        "throttled",
    ),
    Row(
        COHERE,
        "openai",
        400,
        {"message": "too many tokens: the total number of tokens in the prompt exceeds the limit of 4081."},
        "too_long",
    ),
    Row(
        CEREBRAS,
        "openai",
        429,
        {
            "message": "Tokens per minute limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
        "throttled",
        {"x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "11.4"},
        11.4,
    ),
    Row(OPENROUTER, "openai", 402, {"error": {"code": 402, "message": "Insufficient credits."}}, "quota_exhausted"),
    Row(
        OPENROUTER,
        "openai",
        403,
        {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}},
        "content_filtered",
    ),
    Row(
        OPENROUTER,
        "openai",
        429,
        {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min"}},
        "throttled",
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int((NOW + 42) * 1000))},
        42,
    ),
    Row(
        OPENROUTER,
        "openai",
        503,
        {
            "error": {
                "code": 503,
                "message": "There is no available model provider that meets your routing requirements",
                "metadata": {"error_type": "provider_overloaded"},
            }
        },
        "overloaded",
    ),
    Row(
        XAI,
        "openai",
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***."},
        "auth",
    ),
    Row(
        XAI,
        "openai",
        429,
        {
            "code": "Some resource has been exhausted",
            "error": "Your team has either used all available credits or reached its monthly spending limit.",
        },
        "quota_exhausted",
    ),
    Row(DEEPSEEK, "openai", 402, openai("Insufficient Balance"), "quota_exhausted"),
    Row(
        VLLM,
        "openai",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4096 tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
        "too_long",
    ),
    Row(
        LLAMA,
        "openai",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        "overloaded",
    ),
    Row(
        CLAUDE,
        "anthropic",
        429,
        anthropic(
            "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute"
        ),
        "throttled",
        {"retry-after": "17"},
        17,
    ),
    Row(
        CLAUDE_LIMITS,
        "anthropic",
        429,
        anthropic("rate_limit_error", "Too many output tokens"),
        "throttled",
        {
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "anthropic-ratelimit-output-tokens-reset": "2027-01-15T08:00:30Z",
            "anthropic-ratelimit-requests-remaining": "5",
            "anthropic-ratelimit-requests-reset": "2027-01-15T08:09:00Z",
        },
        30,
    ),
    Row(CLAUDE, "anthropic", 529, anthropic("overloaded_error", "Overloaded"), "overloaded"),
    Row(
        CLAUDE,
        "anthropic",
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        "quota_exhausted",
    ),
    Row(CLAUDE, "anthropic", 402, anthropic("billing_error", "There's an issue with your billing"), "quota_exhausted"),
    Row(CLAUDE, "anthropic", 413, anthropic("request_too_large", "Request exceeds the maximum size"), "too_long"),
    Row(
        CLAUDE,
        "anthropic",
        400,
        anthropic("invalid_request_error", "prompt is too long: 205000 tokens > 200000 maximum"),
        "too_long",
    ),
    Row(CLAUDE, "anthropic", 504, anthropic("timeout_error", "The request timed out"), "timeout"),
    Row(
        GEMINI_LIMITS,
        "gemini",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            QUOTA,
            quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10"),
            RETRY_INFO,
        ),
        "throttled",
        wait_s=36,
    ),
    Row(
        GEMINI_LIMITS,
        "gemini",
        429,
        gemini(
            429,
            "RESOURCE_EXHAUSTED",
            QUOTA,
            quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250"),
            RETRY_INFO,
        ),
        "quota_exhausted",
        wait_s=36,
    ),
    Row(
        GEMINI,
        "gemini",
        503,
        gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        "overloaded",
    ),
    Row(GEMINI, "gemini", 504, gemini(504, "DEADLINE_EXCEEDED", "Deadline expired"), "timeout"),
    Row(
        GEMINI,
        "gemini",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "API key not valid.",
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
        ),
        "auth",
    ),
    Row(
        GEMINI,
        "gemini",
        400,
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        "too_long",
    ),
    Row(TGI, "tgi", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, "overloaded"),
    Row(
        TGI,
        "tgi",
        424,
        {"error": "Request failed during generation: Server error", "error_type": "generation"},
        "server",
    ),
    Row(TEI, "tei", 429, {"error": "Model is overloaded", "error_type": "Overloaded"}, "overloaded"),
    Row(
        TEI,
        "tei",
        413,
        {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"},
        "invalid_request",
    ),
    Row(
        OLLAMA,
        "ollama",
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        "overloaded",
    ),
    Row(OLLAMA, "ollama", 404, {"error": "model 'x' not found"}, "invalid_request"),
    Row(
        "RFC 9110, section 10.2.3",
        "openai",
        429,
        openai("Slow down"),
        "throttled",
        {"retry-after": formatdate(NOW + 120, usegmt=True)},
        120,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.page}-{row.status}-{row.kind}" for row in ROWS])
def test_a_documented_refusal_has_its_word_and_its_hint(row: Row) -> None:
    dialect = DIALECTS.get(row.dialect)(lambda: NOW)
    failure = dialect.error(row.status, row.headers, msgspec.json.encode(row.body))
    assert failure.kind == row.kind
    assert failure.retry_after_s == (pytest.approx(row.wait_s) if row.wait_s is not None else None)


@pytest.mark.parametrize(
    ("page", "dialect", "headers", "requests", "tokens"),
    [
        (
            OPENAI_LIMITS,
            "openai",
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            (60, 59, 1),
            (150000, 149984, 360),
        ),
        (
            "github.com/mistralai/client-ts/issues/169 (a reply of api.mistral.ai)",
            "openai",
            {
                "x-ratelimit-limit-req-minute": "720",
                "x-ratelimit-remaining-req-minute": "708",
                "x-ratelimit-limit-tokens-minute": "5000000",
                "x-ratelimit-remaining-tokens-minute": "4999911",
            },
            (720, 708, 1.0),
            (5000000, 4999911, 0.001068),
        ),
        (
            CEREBRAS,
            "openai",
            {
                "x-ratelimit-limit-tokens-minute": "60000",
                "x-ratelimit-remaining-tokens-minute": "30000",
                "x-ratelimit-reset-tokens-minute": "30",
            },
            None,
            (60000, 30000, 30),
        ),
        (
            "learn.microsoft.com/answers/questions/5625878 (Azure says -1 where it has no limit)",
            "openai",
            {
                "x-ratelimit-limit-tokens": "-1",
                "x-ratelimit-remaining-tokens": "-1",
                "x-ratelimit-reset-tokens": "0",
            },
            None,
            None,
        ),
        (
            CLAUDE_LIMITS,
            "anthropic",
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:02Z",
            },
            (50, 49, 2),
            None,
        ),
    ],
)
def test_the_headers_of_a_served_call_teach_the_limiter(
    page: str,
    dialect: str,
    headers: dict[str, str],
    requests: tuple[float, ...] | None,
    tokens: tuple[float, ...] | None,
) -> None:
    hints = DIALECTS.get(dialect)(lambda: NOW).rate_hints(headers)
    found = (hints.requests, hints.tokens) if hints is not None else (None, None)
    for said, expected in zip(found, (requests, tokens), strict=True):
        assert said == (pytest.approx(expected, abs=1e-6) if expected is not None else None), page
