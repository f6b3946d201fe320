"""Error bodies as the providers document them, and as their servers send them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, Malformed
from engine.dialects.openai.client import OpenAIDialect
from tests.servers.replies import completion, error

CONTEXT = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"


def said(status: int, body: Any, headers: dict[str, str] | None = None) -> InferenceError:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return OpenAIDialect(lambda: 0.0).error(status, headers or {}, content)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "auth"),
        (402, "quota_exhausted"),
        (403, "auth"),
        (404, "invalid_request"),
        (405, "invalid_request"),
        (408, "timeout"),
        (409, "server"),
        (413, "too_long"),
        (422, "invalid_request"),
        (424, "server"),
        (429, "throttled"),
        (498, "overloaded"),
        (500, "server"),
        (501, "invalid_request"),
        (502, "server"),
        (503, "overloaded"),
        (504, "timeout"),
        (520, "server"),
        (524, "timeout"),
        (529, "overloaded"),
    ],
)
def test_a_status_has_its_word(status: int, kind: str) -> None:
    failure = said(status, error("It went wrong."))
    assert (failure.kind, failure.status) == (kind, status)
    assert failure.message.startswith(f"HTTP {status}: It went wrong.")


@pytest.mark.parametrize(
    ("who", "status", "body", "kind"),
    [
        ("OpenAI", 400, error(CONTEXT, "context_length_exceeded", "invalid_request_error"), "too_long"),
        (
            "OpenAI",
            429,
            error(
                "You exceeded your current quota, please check your plan", "insufficient_quota", "insufficient_quota"
            ),
            "quota_exhausted",
        ),
        (
            "OpenAI",
            429,
            error("Request too large for gpt-4o on tokens per min (TPM)", "rate_limit_exceeded"),
            "too_long",
        ),
        ("OpenAI", 429, error("Rate limit reached for gpt-4o", "rate_limit_exceeded", "requests"), "throttled"),
        ("OpenAI", 400, error("Your request was rejected", "content_policy_violation"), "content_filtered"),
        ("OpenAI", 401, error("Incorrect API key provided: sk-…", "invalid_api_key"), "auth"),
        ("Azure", 400, error("The response was filtered", "content_filter"), "content_filtered"),
        (
            "Groq",
            400,
            error("Please reduce the length of the messages or completion.", "context_length_exceeded"),
            "too_long",
        ),
        (
            "Groq",
            413,
            error(
                "Request too large for model `m` … tokens per minute (TPM): Limit 6000", "rate_limit_exceeded", "tokens"
            ),
            "too_long",
        ),
        ("vLLM", 400, {"object": "error", "message": CONTEXT, "type": "BadRequestError", "code": 400}, "too_long"),
        (
            "vLLM",
            400,
            error("The decoder prompt (length 9) is longer than the maximum model length of 8.", 400),
            "too_long",
        ),
        ("vLLM", 404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, "invalid_request"),
        (
            "llama.cpp",
            400,
            error("request (9 tokens) exceeds the available context size (8 tokens)", 400, "exceed_context_size_error"),
            "too_long",
        ),
        (
            "llama.cpp, older",
            500,
            error("the request exceeds the available context size. try increasing the context size", 500),
            "too_long",
        ),
        ("llama.cpp", 503, error("Loading model", 503, "unavailable_error"), "overloaded"),
        (
            "SGLang",
            400,
            {
                "object": "error",
                "message": "The input (9 tokens) is longer than the model's context length (8 tokens).",
            },
            "too_long",
        ),
        (
            "TGI",
            422,
            {"error": "Input validation error: `inputs` must have less than 1024 tokens.", "error_type": "validation"},
            "too_long",
        ),
        (
            "TGI",
            422,
            {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8. Given: 9"},
            "too_long",
        ),
        ("TGI", 422, {"error": "`temperature` must be positive", "error_type": "validation"}, "invalid_request"),
        ("TGI", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, "overloaded"),
        (
            "Mistral",
            400,
            {"object": "error", "message": "Prompt … too large for model with 8 maximum context length"},
            "too_long",
        ),
        ("Mistral", 422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}, "invalid_request"),
        ("Fireworks", 400, error("The prompt is too long: 9, model maximum context length: 8"), "too_long"),
        ("Cerebras", 429, {"message": "Tokens per minute limit exceeded", "code": "token_quota_exceeded"}, "throttled"),
        (
            "Cerebras",
            400,
            {"message": "Please reduce the length of the messages", "code": "context_length_exceeded"},
            "too_long",
        ),
        ("DeepSeek", 402, error("Insufficient Balance", "invalid_request_error"), "quota_exhausted"),
        ("OpenRouter", 403, error("Your input was flagged by moderation", 403), "content_filtered"),
        ("OpenRouter", 400, error("This endpoint's maximum context length is 8 tokens.", 400), "too_long"),
        ("xAI", 400, {"code": "invalid-argument", "error": "Incorrect API key provided: xa***"}, "auth"),
        ("xAI", 403, {"code": "permission", "error": "Your team has used all available credits"}, "quota_exhausted"),
        (
            "Gemini",
            400,
            [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
            "auth",
        ),
        (
            "OpenAI",
            400,
            error("max_tokens is too large: 9. This model supports at most 8 completion tokens"),
            "invalid_request",
        ),
    ],
)
def test_a_providers_own_words_decide(who: str, status: int, body: Any, kind: str) -> None:
    assert said(status, body).kind == kind, who


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "M"}}, "M"),
        ({"error": "M"}, "M"),
        ([{"error": {"message": "M"}}], "M"),
        ({"message": "M"}, "M"),
        ({"detail": "M"}, "M"),
        ({"detail": [{"msg": "M"}]}, '[{"msg":"M"}]'),
        ({"error": {"message": {"a": 1}}}, '{"a":1}'),
        ({"error": {}}, '{"error":{}}'),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><title>502 Bad Gateway</title>", "an HTML page: 502 Bad Gateway"),
        (b"", "an empty body"),
        (b"line one\r\n\x1b[31mline two\x00", "line one �[31mline two�"),
    ],
)
def test_the_message_is_found_in_every_envelope(body: Any, message: str) -> None:
    assert said(500, body).message == f"HTTP 500: {message}"


def test_a_long_message_is_cut() -> None:
    assert len(said(500, error("x" * 100_000)).message) < 700


def test_the_code_and_the_request_id_are_kept() -> None:
    failure = said(429, error("Slow down", "rate_limit_exceeded"), {"x-request-id": "req_9"})
    assert (failure.code, failure.provider_request_id) == ("rate_limit_exceeded", "req_9")


def test_a_hint_comes_with_a_failure_that_passes() -> None:
    assert said(429, error("x"), {"retry-after": "7"}).retry_after_s == 7
    assert said(503, error("x"), {"retry-after": "7"}).retry_after_s == 7
    assert said(429, error("x", "insufficient_quota"), {"retry-after": "7"}).retry_after_s == 7


def test_no_hint_comes_with_a_failure_that_does_not_pass() -> None:
    assert said(400, error("x"), {"retry-after": "7"}).retry_after_s is None


def test_the_rate_limit_headers_of_every_reply_are_no_hint_for_a_server_error() -> None:
    assert said(500, error("x"), {"x-ratelimit-reset-tokens": "6m0s"}).retry_after_s is None


def test_an_unknown_model_says_what_to_check() -> None:
    assert "model.name" in said(404, error("The model `x` does not exist")).message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_with_the_next_step(status: int) -> None:
    failure = said(status, b"", {"location": "https://elsewhere.example/v1"})
    assert failure.kind == "invalid_request"
    assert "redirect to https://elsewhere.example/v1 refused" in failure.message
    assert "provider.base_url" in failure.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error("x", 429), "throttled"),
        (error("x", "429"), "throttled"),
        (error("x", "rate_limit_exceeded"), "throttled"),
        (error("x", None, "overloaded_error"), "overloaded"),
        (error("x", None, "invalid_request_error"), "invalid_request"),
        (error("x", 502), "server"),
        (error("x", 401), "auth"),
        (error(CONTEXT), "too_long"),
        ({"error": "something"}, "server"),
        ({"object": "error", "message": "x", "code": 400}, "invalid_request"),
        ([{"error": {"code": 503, "message": "x"}}], "overloaded"),
    ],
)
def test_an_error_with_status_200_is_an_error(body: Any, kind: str) -> None:
    with pytest.raises(InferenceError) as caught:
        OpenAIDialect(lambda: 0.0).decode("chat", 200, {}, msgspec.json.encode(body))
    assert caught.value.kind == kind


def test_a_null_error_beside_an_answer_is_none() -> None:
    body = completion(error=None)
    assert OpenAIDialect().decode("chat", 200, {}, msgspec.json.encode(body)).body == body


def test_an_answer_where_a_stream_was_asked_for_is_malformed() -> None:
    failure = said(200, completion(), {"content-type": "application/json; charset=utf-8"})
    assert isinstance(failure, Malformed)
    assert "application/json" in failure.message
