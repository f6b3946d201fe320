"""The text of replies and chunks, and how results read in a notebook."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Throttled
from engine.core.reply_text import delta_text, first_text
from engine.core.request import Attempt, EngineRecord, Result
from engine.core.stream import Chunk
from engine.core.usage import Usage

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(["choices", "message", "content", "text", "delta", "output", "type", "x"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"content": "Paris"}}, {"message": {"content": "Rome"}}]}, "Paris"),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "Pa"}, {"text": "ris"}]}}]}, "Paris"),
        ({"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}, None),
        ({"choices": [{"text": "a completion"}]}, "a completion"),
        ({"output": [{"type": "reasoning"}, {"content": [{"type": "output_text", "text": "Paris"}]}]}, "Paris"),
        ({"text": "spoken words"}, "spoken words"),
        ({"data": [{"embedding": [0.1]}]}, None),
        ({"choices": []}, None),
        (None, None),
    ],
)
def test_the_first_text_of_a_reply(body: Any, text: str | None) -> None:
    assert Result("1", body).text == first_text(body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"delta": {"content": "Pa"}}]}, "Pa"),
        ({"choices": [{"text": "Pa"}]}, "Pa"),
        ({"type": "response.output_text.delta", "delta": "Pa"}, "Pa"),
        ({"type": "response.completed"}, ""),
        ({"choices": [{"delta": {}}]}, ""),
        ({"choices": []}, ""),
    ],
)
def test_the_text_of_a_chunk(body: dict[str, Any], text: str) -> None:
    assert Chunk(body).text == delta_text(body) == text


@given(values)
def test_any_json_has_a_text_or_none(body: Any) -> None:
    assert first_text(body) is None or isinstance(first_text(body), str)
    assert isinstance(delta_text(body), str)


def test_a_result_shows_its_answer_and_figures() -> None:
    record = EngineRecord(target="groq/llama", attempts=[Attempt("groq/llama"), Attempt("groq/llama")], total_s=0.4213)
    body = {"choices": [{"message": {"content": "Paris is\nthe capital. " + "x" * 100}}]}
    shown = repr(Result("1", body, usage=Usage(12, 8), engine=record))
    assert shown.startswith("<Result ok 'Paris is the capital. xxx")
    assert shown.endswith("…' (groq/llama, 0.421 s, 12+8 tokens, 2 attempts)>")


def test_a_failed_result_shows_its_error() -> None:
    assert repr(Result("1", error=Throttled("too many"))) == "<Result failed throttled: too many (no target, 0 s)>"


def test_a_result_without_text_shows_the_names_of_its_fields() -> None:
    record = EngineRecord(target="tei/minilm", total_s=0.01)
    assert repr(Result("1", {"object": "list", "data": []}, engine=record)) == (
        "<Result ok body: object, data (tei/minilm, 0.01 s)>"
    )
