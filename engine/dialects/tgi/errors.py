"""The errors of Text Generation Inference and Text Embeddings Inference, in the closed vocabulary.

Both send `{"error": "text", "error_type": "word"}`, TEI's OpenAI paths `{"message", "type", "code"}`. Source: their
OpenAPI documents (docs/openapi.json) and sources (router/src/infer/mod.rs, router/src/http/server.rs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.core.errors import InferenceError, InvalidRequest, Overloaded, ServerFailed, TooLong, Truncated, retyped
from engine.dialects.openai import errors as openai_errors

_TYPES: dict[str, type[InferenceError]] = {
    "incomplete_generation": Truncated,
    "incomplete_generation_stream": Truncated,
    "template_error": InvalidRequest,
    "missing_template_variable": InvalidRequest,
    "tool_error": InvalidRequest,
    "tokenizer": InvalidRequest,
    "empty": InvalidRequest,
    "unhealthy": ServerFailed,
    "healthcheck": ServerFailed,
}
"""Words of `error_type` that say more than the status."""
_TOO_MANY = re.compile(r"maximum allowed batch size", re.IGNORECASE)
_TOO_LONG = re.compile(r"must have less than \d+ (?:tokens|characters)")
_WORDS: tuple[tuple[str, type[InferenceError]], ...] = (
    ("Input validation error", InvalidRequest),
    ("Template error", InvalidRequest),
    ("Tool error", InvalidRequest),
    ("Model is overloaded", Overloaded),
    ("Incomplete generation", Truncated),
)
"""The beginnings of the server's messages; a stream of chunks has nothing else (`APIError`)."""


def typed_error(status: int, headers: Mapping[str, str], content: bytes, wall_s: float) -> InferenceError:
    """The error for a reply that is not what was requested."""
    return _typed(openai_errors.typed_error(status, headers, content, wall_s))


def stream_error(event: dict[str, Any], wall_s: float) -> InferenceError:
    """The error for an event of a stream that holds one."""
    return _typed(openai_errors.error_from(event, 200, {}, wall_s))


def retyped_words(error: InferenceError) -> InferenceError:
    """The error that a chat's stream holds, by its words, for it has neither a type nor a code."""
    kind = next((kind for words, kind in _WORDS if words in error.message), None)
    return retyped(error, kind) if kind is not None and type(error) is ServerFailed else error


def _typed(error: InferenceError) -> InferenceError:
    if _TOO_MANY.search(error.message):
        # TEI's documents give this status 413, which elsewhere is said of inputs that are too long.
        return retyped(error, InvalidRequest, "; send fewer inputs a call: policy.batch.max_size=…")
    kind = TooLong if _TOO_LONG.search(error.message) else _TYPES.get(error.code or "")
    return error if kind is None or isinstance(error, kind) else retyped(error, kind)
