"""An error under another word of the vocabulary, all that the provider said kept."""

from __future__ import annotations

from engine.errors import InferenceError


def retyped(error: InferenceError, kind: type[InferenceError], step: str = "") -> InferenceError:
    """`error` as a `kind`; `step` is added to its message."""
    return kind(
        error.message + step,
        status=error.status,
        retry_after_s=error.retry_after_s if kind.retryable else None,
        provider_request_id=error.provider_request_id,
        code=error.code,
    )
