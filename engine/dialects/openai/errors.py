"""The errors of the OpenAI wire, in the closed vocabulary.

OpenAI's error object is `{"error": {"message", "type", "param", "code"}}`; those who speak its wire vary the envelope
(a text, a list of one, no envelope, FastAPI's `detail`), the status and the wording. Here is the one table of it.
Read from the error pages of OpenAI, Groq, OpenRouter, DeepSeek, Mistral, xAI, Cerebras and Together, and from the
sources of vLLM, llama.cpp, SGLang and TGI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

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
from engine.dialects.common.error_body import _one_line, excerpt, is_error, request_id
from engine.dialects.common.json_body import lenient
from engine.dialects.common.retry_hints import retry_after_s

_MESSAGE_CHARS = 600

_CODES: dict[str, type[InferenceError]] = {
    # The provider's own words, in `code` or `type`, that say more than the status does.
    "context_length_exceeded": TooLong,
    "context_window_exceeded": TooLong,
    "exceed_context_size_error": TooLong,
    "string_above_max_length": TooLong,
    "request_too_large": TooLong,
    "token_limit_exceeded": TooLong,
    "max_tokens_exceeded": TooLong,  # OpenRouter
    "insufficient_quota": QuotaExhausted,
    "insufficient_balance": QuotaExhausted,
    "insufficient_credits": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "billing_not_active": QuotaExhausted,
    "credit_balance_exhausted": QuotaExhausted,
    "organization_usage_limit_exceeded": QuotaExhausted,
    "organization_spend_limit_exceeded": QuotaExhausted,
    "project_spend_limit_exceeded": QuotaExhausted,
    "blocked_api_access": QuotaExhausted,  # Groq: the spend limit of the organization
    # Groq: the model wrote a call or JSON that can't be read; with status 400, but another try may do better.
    "tool_use_failed": Malformed,
    "json_validate_failed": Malformed,
    "content_filter": ContentFiltered,
    "content_policy_violation": ContentFiltered,
    "moderation_blocked": ContentFiltered,
    # Responses and images (API reference, "The response object", error).
    "image_content_policy_violation": ContentFiltered,
    "bio_policy": ContentFiltered,
    "misalignment_policy_violation": ContentFiltered,
    "invalid_api_key": AuthFailed,
    "authentication_error": AuthFailed,
    "permission_error": AuthFailed,
}
_WEAK_CODES: dict[str, type[InferenceError]] = {
    # Heard only where the status says nothing: in a reply with status 200 and within a stream.
    "rate_limit_exceeded": Throttled,
    "rate_limit_error": Throttled,
    "too_many_requests": Throttled,
    "too_many_requests_error": Throttled,
    "overloaded": Overloaded,
    "overloaded_error": Overloaded,
    "service_unavailable": Overloaded,
    "service_unavailable_error": Overloaded,
    "server_is_overloaded": Overloaded,
    "provider_overloaded": Overloaded,
    "invalid_request_error": InvalidRequest,
    "badrequesterror": InvalidRequest,
    "validation": InvalidRequest,
    "not_found_error": InvalidRequest,
    "invalid_prompt": InvalidRequest,
    "data_residency_mismatch": InvalidRequest,
    "vector_store_timeout": TimedOut,
    "image_parse_error": InvalidRequest,
    "image_too_large": InvalidRequest,
    "image_too_small": InvalidRequest,
    "image_file_too_large": InvalidRequest,
    "image_file_not_found": InvalidRequest,
    "empty_image_file": InvalidRequest,
    "invalid_image": InvalidRequest,
    "invalid_image_format": InvalidRequest,
    "invalid_image_mode": InvalidRequest,
    "invalid_image_url": InvalidRequest,
    "invalid_base64_image": InvalidRequest,
    "unsupported_image_media_type": InvalidRequest,
    "failed_to_download_image": InvalidRequest,
    "timeout": TimedOut,
    "timeout_error": TimedOut,
}
_WORDINGS: tuple[tuple[re.Pattern[str], type[InferenceError]], ...] = (
    (
        re.compile(
            r"maximum context length|maximum model length|model's context length"
            r"|exceeds? (?:the |this )?(?:available |model'?s? |maximum )*context"
            r"|context (?:size|length|window) (?:has been )?exceeded"
            r"|reduce the length of the (?:messages|prompt|input)|reduce your (?:prompt|message size)"
            r"|(?:prompt|input) is too (?:long|large)"
            r"|`inputs` (?:tokens \+ `max_new_tokens` )?must (?:be <=|have less than)"
            r"|request too large for (?:model|gpt)|input is too large to process"
            r"|must be less than the context length|number of tokens in the prompt exceeds",
            re.IGNORECASE,
        ),
        TooLong,
    ),
    (
        re.compile(
            r"insufficient (?:balance|credits?|funds)|credit balance is too low|used all available credits"
            r"|out of credits"
            r"|requires more credits|monthly spending limit|account .{0,40}suspended"
            r"|trial key,? which is limited to [\d,]+ api calls / month",
            re.IGNORECASE,
        ),
        QuotaExhausted,
    ),
    (
        re.compile(
            r"content management policy|violates usage guidelines|flagged by|requires moderation"
            r"|rejected (?:as a result of|by) (?:our|the) safety system",
            re.IGNORECASE,
        ),
        ContentFiltered,
    ),
    # Mistral, with status 429: the model's capacity, which no slower pace of this key's would change.
    (re.compile(r"service tier capacity exceeded", re.IGNORECASE), Overloaded),
    (re.compile(r"(?:incorrect|invalid) api key|api key (?:is )?not valid", re.IGNORECASE), AuthFailed),
)
_STATUSES: dict[int, type[InferenceError]] = {
    401: AuthFailed,
    402: QuotaExhausted,
    403: AuthFailed,
    408: TimedOut,
    # A conflict or "too early" is a lock or a race inside the provider: OpenAI's own client tries these again.
    409: ServerFailed,
    413: TooLong,
    424: ServerFailed,  # TGI: the generation itself failed.
    425: ServerFailed,
    429: Throttled,
    501: InvalidRequest,  # The server can't do this at all; no other try will change that.
    498: Overloaded,  # Groq: no capacity in the flex tier.
    503: Overloaded,
    504: TimedOut,
    524: TimedOut,  # Cloudflare: the origin did not answer in time.
    529: Overloaded,
}
FINISH_FAILURES: dict[str, type[InferenceError]] = {
    "error": ServerFailed,  # OpenRouter: the provider behind it failed after the headers were sent.
    "insufficient_system_resource": Overloaded,  # DeepSeek
}
"""Finish reasons that are failures, not ends."""


def typed_error(status: int, headers: Mapping[str, str], content: bytes, wall_s: float) -> InferenceError:
    """The error for a reply that is not what was requested. Status 2xx: an error body, else Malformed."""
    body = lenient(content)
    if 200 <= status < 300:
        if is_error(body):
            return error_from(body, status, headers, wall_s)
        what = headers.get("content-type", "no content type").partition(";")[0]
        return Malformed(
            f"HTTP {status}: the reply is not what was requested ({what}): {excerpt(content)}",
            status=status,
            provider_request_id=request_id(headers),
        )
    if 300 <= status < 400:
        return InvalidRequest(
            f"HTTP {status}: redirect to {headers.get('location', 'nowhere')} refused, for a key never follows one; "
            "set provider.base_url to the final address",
            status=status,
        )
    return error_from(body if body is not None else excerpt(content), status, headers, wall_s)


def error_from(body: Any, status: int, headers: Mapping[str, str], wall_s: float) -> InferenceError:
    """The error for a decoded error body (or a text)."""
    message, words = _read(body)
    if 200 <= status < 300:
        status = next((int(word) for word in words if len(word) == 3 and word.isdigit() and word >= "400"), status)
    kind = _kind(status, words, message)
    code = next((word for word in words if not word.isdigit()), None)
    hint = retry_after_s(headers, message, wall_s, throttled=kind in (Throttled, QuotaExhausted))
    step = "; check model.name and provider.base_url" if status == 404 else ""
    return kind(
        f"HTTP {status}: {message}{step}",
        status=status,
        retry_after_s=hint if kind.retryable or kind is QuotaExhausted else None,
        provider_request_id=request_id(headers),
        code=code,
    )


def _kind(status: int, words: list[str], message: str) -> type[InferenceError]:
    kind = _said(status, words, message)
    # "model_not_found" or LiteLLM's "key_model_access_denied" with 401 or 403: the model is refused, not the key.
    return InvalidRequest if kind is AuthFailed and any("model" in word for word in words) else kind


def _said(status: int, words: list[str], message: str) -> type[InferenceError]:
    for word in words:
        if word in _CODES:
            return _CODES[word]
    for pattern, kind in _WORDINGS:
        if pattern.search(message):
            return kind
    if status == 429 and "overloaded" in words:
        return Overloaded
    if status in _STATUSES:
        return _STATUSES[status]
    if 400 <= status < 500:
        return InvalidRequest
    if status < 400:
        for word in words:
            if word in _WEAK_CODES:
                return _WEAK_CODES[word]
    return ServerFailed


def _read(body: Any) -> tuple[str, list[str]]:
    """The message of an error body and its code words, lower-case."""
    if type(body) is list and len(body) == 1:
        body = body[0]
    if type(body) is not dict:
        return _text(body), []
    error = body.get("error")
    fields = error if type(error) is dict and error else body
    message = error if type(error) is str else _first(fields, "message", "detail", "title", "error_message")
    words: list[str] = []
    for source in (fields, body):
        for name in ("code", "type", "error_type", "status"):
            word = source.get(name)
            if isinstance(word, str | int) and not isinstance(word, bool) and len(str(word)) < 80:
                words.append(str(word).lower())
    return _text(message if message is not None else body), words


def _first(fields: dict[str, Any], *names: str) -> Any:
    return next((fields[name] for name in names if fields.get(name)), None)


def _text(value: Any) -> str:
    text = value if type(value) is str else msgspec.json.encode(value).decode()
    text = _one_line(text)
    return text[:_MESSAGE_CHARS] + "…" if len(text) > _MESSAGE_CHARS else text
