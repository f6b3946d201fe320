"""A usage that says nothing is not known, and never free; one side alone is completed by an estimate, and marked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import token_estimate
from engine.core.registry import DIALECTS
from engine.core.usage import Usage, token_count

ASKED = {"messages": [{"role": "user", "content": "How many legs has a spider?"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NOTHING = st.sampled_from(
    [None, 0, -1, 0.0, -2.5, 7.5, "", "7", "seven", "-3", "nan", True, False, [], {}, 2**80, 1e300]
)
NAMES = {
    "openai": ("usage", "prompt_tokens", "completion_tokens"),
    "anthropic": ("usage", "input_tokens", "output_tokens"),
    "gemini": ("usageMetadata", "promptTokenCount", "candidatesTokenCount"),
}


def reply_of(dialect: str, usage: Any) -> bytes:
    name = NAMES[dialect][0]
    bodies: dict[str, dict[str, Any]] = {
        "openai": {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Eight, of course."}}]},
        "anthropic": {"content": [{"type": "text", "text": "Eight, of course."}], "stop_reason": "end_turn"},
        "gemini": {"candidates": [{"content": {"parts": [{"text": "Eight, of course."}]}, "finishReason": "STOP"}]},
    }
    return msgspec.json.encode({**bodies[dialect], name: usage})


def counted(dialect: str, usage: Any) -> Usage | None:
    headers = {"content-type": "application/json"}
    reply = DIALECTS.get(dialect)(lambda: 0.0).decode("chat", 200, headers, reply_of(dialect, usage))
    return token_estimate.completed(reply.usage, "chat", ASKED, token_estimate.written_tokens(reply.body))


@pytest.mark.parametrize("dialect", NAMES)
@given(prompt=NOTHING, answer=NOTHING)
def test_counts_that_say_nothing_are_not_known(dialect: str, prompt: Any, answer: Any) -> None:
    _, first, second = NAMES[dialect]
    assert counted(dialect, {first: prompt, second: answer}) is None
    assert counted(dialect, {first: prompt}) is None


@pytest.mark.parametrize("dialect", NAMES)
@given(usage=JSON)
def test_any_json_is_a_usage_or_is_not_known(dialect: str, usage: Any) -> None:
    found = counted(dialect, usage)
    assert found is None or (found.input_tokens > 0 and found.output_tokens > 0)


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize(("prompt", "answer"), [(7.0, 2.0), (7, 2.0), (7, 2)])
def test_whole_counts_are_read_however_they_are_written(dialect: str, prompt: Any, answer: Any) -> None:
    _, first, second = NAMES[dialect]
    assert counted(dialect, {first: prompt, second: answer}) == Usage(7, 2)


@pytest.mark.parametrize("dialect", NAMES)
@given(nothing=NOTHING)
def test_one_side_alone_is_completed_and_marked(dialect: str, nothing: Any) -> None:
    _, first, second = NAMES[dialect]
    assert counted(dialect, {first: 9, second: nothing}) == Usage(9, 5, estimated=True)
    assert counted(dialect, {first: nothing, second: 4}) == Usage(7, 4, estimated=True)


def test_names_of_other_wires_and_totals_are_read() -> None:
    assert counted("openai", {"promptTokens": 7, "completionTokens": 2, "totalTokens": 9}) == Usage(7, 2)
    assert counted("openai", {"inputTokens": 7, "outputTokens": 2}) == Usage(7, 2)
    assert counted("openai", {"prompt_tokens": 7, "total_tokens": 9}) == Usage(7, 2)
    total = counted("openai", {"total_tokens": 20})
    assert total is not None
    assert (total.input_tokens, total.output_tokens, total.estimated) == (15, 5, True)


def test_a_total_alone_is_the_prompt_of_what_writes_no_text() -> None:
    found = token_estimate.completed(Usage(9, total_only=True), "embedding", {"input": "tea"}, 0)
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.estimated) == (9, 0, False)


def test_an_answer_without_text_has_no_tokens_and_a_charge_is_enough() -> None:
    assert token_estimate.completed(Usage(9, 0), "chat", ASKED, 0) == Usage(9, 0)
    assert token_estimate.completed(Usage(cost=0.25), "chat", ASKED, 5) == Usage(cost=0.25)
    assert token_estimate.completed(Usage(), "token-count", ASKED, 0) == Usage()


@given(value=JSON)
def test_any_json_is_a_count_or_none(value: Any) -> None:
    assert type(token_count(value)) is int
    assert token_count(value) >= 0
