"""Errors as Ollama sends them: its docs, "Errors"; wordings of server/routes.go, sched.go, llm/llama_server.go."""

from __future__ import annotations

import msgspec
import pytest

from engine.core.errors import (
    AuthFailed,
    InferenceError,
    InvalidRequest,
    Overloaded,
    ServerFailed,
    Throttled,
    TooLong,
)
from engine.dialects.ollama.client import OllamaDialect


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, '"llama3" does not support tools', InvalidRequest),
        (404, "model 'llama9' not found", InvalidRequest),
        (400, "the input length exceeds the context length", TooLong),
        (400, "the prompt is longer than the context length currently available to the model; shorten it", TooLong),
        (500, "input exceeds maximum context length and cannot be truncated further", TooLong),
        (503, "server busy, please try again.  maximum pending requests exceeded", Overloaded),
        (500, "llama runner process has terminated: exit status 2", ServerFailed),
        (500, "model requires more system memory (9.0 GiB) than is available (5.0 GiB)", ServerFailed),
        (429, "you have reached your hourly usage limit", Throttled),
        (401, "unauthorized", AuthFailed),
        (200, "an error was encountered while running the model", ServerFailed),
    ],
)
def test_each_error_has_its_word(status: int, message: str, kind: type[InferenceError]) -> None:
    with pytest.raises(InferenceError) as caught:
        OllamaDialect().decode("chat", status, {}, msgspec.json.encode({"error": message}))
    assert type(caught.value) is kind
    assert message.split("  ")[0] in caught.value.message
    assert caught.value.status == status


def test_a_retry_hint_is_kept() -> None:
    error = OllamaDialect().error(503, {"retry-after": "3"}, b'{"error":"server busy, please try again."}')
    assert error.retry_after_s == 3.0
