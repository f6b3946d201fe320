"""The errors of Ollama's wire, in the closed vocabulary.

An error is `{"error": "text"}`, whole or as a line of a stream; there is no code, so the words must do. Source:
Ollama's docs, "Errors", and its server's source (server/routes.go, server/sched.go, llm/llama_server.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.core.errors import InferenceError, Overloaded, TooLong, retyped
from engine.dialects.openai import errors as openai_errors

_WORDINGS: tuple[tuple[re.Pattern[str], type[InferenceError]], ...] = (
    (
        re.compile(
            r"exceeds? (?:the |maximum )*context (?:length|size)|longer than the context length"
            r"|exceeds the available context",
            re.IGNORECASE,
        ),
        TooLong,
    ),
    (re.compile(r"server busy|maximum pending requests exceeded", re.IGNORECASE), Overloaded),
)
_STATUS = re.compile(r"([45]\d\d) [A-Z]")
"""The server's form of a cloud model's refusal inside a stream: "429 Too Many Requests: …"."""


def typed_error(status: int, headers: Mapping[str, str], content: bytes, wall_s: float) -> InferenceError:
    """The error for a reply that is not what was requested."""
    return _worded(openai_errors.typed_error(status, headers, content, wall_s))


def stream_error(line: dict[str, Any], wall_s: float) -> InferenceError:
    """The error for a line of a stream that holds one."""
    text = line["error"]
    quoted = _STATUS.match(text) if type(text) is str else None
    return _worded(openai_errors.error_from(line, int(quoted[1]) if quoted else 200, {}, wall_s))


def _worded(error: InferenceError) -> InferenceError:
    for pattern, kind in _WORDINGS:
        if pattern.search(error.message):
            return error if isinstance(error, kind) else retyped(error, kind)
    return error
