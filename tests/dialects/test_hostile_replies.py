"""Whatever a server sends, whole or streamed, becomes an answer of the right types or a typed error."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError
from engine.dialects.ollama.client import OllamaDialect
from engine.dialects.tei.client import TeiDialect
from engine.dialects.tgi.client import TgiDialect

WORDS = [
    "model",
    "message",
    "content",
    "thinking",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "done",
    "done_reason",
    "id",
    "response",
    "logprobs",
    "token",
    "logprob",
    "top_logprobs",
    "embeddings",
    "error",
    "generated_text",
    "details",
    "finish_reason",
    "top_tokens",
    "tokens",
    "text",
    "special",
    "input_length",
    "generated_tokens",
    "index",
    "score",
    "prompt_eval_count",
    "eval_count",
    "created_at",
    "choices",
    "delta",
    "usage",
    "data",
    "embedding",
    "error_type",
]
values = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 2.5, "", "x", "stop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=12,
)


def mostly(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object of the right fields, any of which may be missing or hold anything."""
    return st.fixed_dictionaries({}, optional={name: field | values for name, field in fields.items()})


flags = st.booleans()
texts = st.sampled_from(["", "x", "stop", "load"])
tokens = mostly(token=texts, text=texts, logprob=st.floats(-1, 0), special=flags)
calls = mostly(id=texts, function=mostly(name=texts, arguments=st.just({"a": 1})))
details = mostly(
    finish_reason=texts,
    generated_tokens=st.just(3),
    input_length=st.just(3),
    tokens=st.lists(tokens),
    top_tokens=st.lists(st.lists(tokens)),
)
bodies = (
    mostly(
        message=mostly(content=texts, thinking=texts, tool_calls=st.lists(calls)),
        done=st.just(True),
        done_reason=texts,
        logprobs=st.lists(tokens),
        response=texts,
    )
    | mostly(generated_text=texts, token=tokens, details=details, top_tokens=st.lists(tokens))
    | st.lists(st.lists(st.floats(-1, 1)) | mostly(index=st.just(0), score=st.floats(0, 1), text=texts))
    | st.dictionaries(st.sampled_from(WORDS), values, max_size=8)
    | values
)
asks = [
    (OllamaDialect, "chat"),
    (OllamaDialect, "completion"),
    (OllamaDialect, "embedding"),
    (TgiDialect, "completion"),
    (TeiDialect, "embedding"),
    (TeiDialect, "rerank"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "task"), asks)
@given(body=bodies, status=st.sampled_from([200, 200, 400, 429, 500, 503, 302]))
def test_a_reply(dialect: Any, task: str, body: Any, status: int) -> None:
    try:
        found = dialect(lambda: 0.0).decode(task, status, {}, msgspec.json.encode(body)).body
    except InferenceError:
        return
    for choice in found.get("choices", ()):
        assert isinstance(choice["message"]["content"] if task == "chat" else choice["text"], str | None)
        assert isinstance(choice["finish_reason"], str)
    for item in found.get("data", ()):
        assert isinstance(item["embedding"], list)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "task", "start"),
    [
        (OllamaDialect, "chat", b""),
        (OllamaDialect, "completion", b""),
        (TgiDialect, "completion", b"data:"),
    ],
)
@given(lines=st.lists(bodies, max_size=4))
def test_a_stream(dialect: Any, task: str, start: bytes, lines: list[Any]) -> None:
    decoder = dialect(lambda: 0.0).stream_decoder(task)
    chunks = [chunk for line in lines for chunk in decoder.feed(start + msgspec.json.encode(line) + b"\n\n")]
    with contextlib.suppress(InferenceError):
        chunks += decoder.finish()
    for chunk in chunks:
        for choice in chunk.body["choices"]:
            assert isinstance(choice["delta"].get("content", "") if task == "chat" else choice["text"], str)
