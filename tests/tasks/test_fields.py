"""Which bodies are understood, and which sampling they ask for."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import InvalidRequest, TooLong
from engine.tasks import fields
from engine.tasks.chat import SUPPORTED
from engine.tasks.local_model import Sampling


def test_without_settings_an_answer_is_sampled_and_bounded() -> None:
    assert fields.sampling({}) == Sampling(max_tokens=256, temperature=1.0, top_p=1.0)


def test_every_setting_is_read() -> None:
    body = {
        "max_tokens": 5, "temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1,
        "frequency_penalty": -1, "presence_penalty": 2, "stop": ["a", "b"], "seed": 7,
    }  # fmt: skip
    assert fields.sampling(body) == Sampling(5, 0.0, 0.5, 3, 0.1, 1.1, -1.0, 2.0, ("a", "b"), 7)


def test_the_newer_name_of_the_limit_goes_first() -> None:
    assert fields.sampling({"max_tokens": 5, "max_completion_tokens": 9}).max_tokens == 9


def test_one_stop_string_needs_no_list() -> None:
    assert fields.sampling({"stop": "end"}).stop == ("end",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", True), ("max_completion_tokens", "5"),
        ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"), ("top_p", 1.1), ("min_p", -1),
        ("frequency_penalty", 3), ("repetition_penalty", 0), ("top_k", 1.5), ("seed", "x"), ("stop", 5),
        ("stop", [""]), ("stop", ["a", 1]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"^body\.{name}: "):
        fields.sampling({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function"}]), ("n", 2), ("logprobs", True), ("logit_bias", {"5": 1}), ("audio", {}),
        ("temprature", 1),
    ],
)  # fmt: skip
def test_what_cant_be_honoured_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=rf"^body\.{name}: not supported .*supported: .*temperature"):
        fields.check({name: value}, SUPPORTED)


def test_a_typo_is_offered_its_right_name() -> None:
    with pytest.raises(InvalidRequest, match=r"did you mean temperature\?"):
        fields.check({"temprature": 1}, SUPPORTED)


def test_what_asks_for_nothing_special_is_accepted() -> None:
    body = {
        "model": "m", "user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "stream": True,
        "stream_options": {"include_usage": True}, "n": 1, "logprobs": False, "tools": None, "tool_choice": "none",
        "response_format": {"type": "text"}, "temperature": None,
    }  # fmt: skip
    fields.check(body, SUPPORTED)


def test_the_answer_is_clipped_to_the_room_that_is_left() -> None:
    assert fields.fit(Sampling(max_tokens=100), 90, 128).max_tokens == 38
    assert fields.fit(Sampling(max_tokens=10), 90, 128).max_tokens == 10


def test_a_prompt_without_room_for_an_answer_is_too_long() -> None:
    with pytest.raises(TooLong, match="128"):
        fields.fit(Sampling(max_tokens=1), 128, 128)


def test_extreme_settings_become_what_every_runtime_can_hold() -> None:
    found = fields.sampling({"top_p": 0, "min_p": 1, "top_k": 10**30, "seed": 2**70 + 5})
    assert 0 < found.top_p < 1e-6
    assert 0.99 < found.min_p < 1
    assert found.top_k == 2**31 - 1
    assert found.seed == 5
    assert 0 <= (fields.sampling({"seed": -1}).seed or 0) < 2**63


@pytest.mark.parametrize("content", ["a\ud800b", [{"type": "text", "text": "\udc00"}]])
def test_half_a_character_is_refused(content: Any) -> None:
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        fields.text_of(content, "body.messages[0].content")
