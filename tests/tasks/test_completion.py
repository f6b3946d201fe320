"""Reading completion bodies and building completion replies."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.tasks import completion


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_prompt_is_read(prompt: Any) -> None:
    assert completion.read({"prompt": prompt, "max_tokens": 3})[0] == "Once"


@pytest.mark.parametrize("prompt", [None, "", [], ["a", "b"], [1, 2], 5])
def test_another_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^body\.prompt: "):
        completion.read({"prompt": prompt})


def test_messages_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"^body\.messages: "):
        completion.read({"prompt": "x", "messages": []})


def test_a_reply_is_an_openai_completion() -> None:
    reply = completion.Answer("7", "m", 123).reply("upon", "length", Usage(1, 2))
    assert reply["object"] == "text_completion"
    assert reply["choices"] == [{"index": 0, "text": "upon", "logprobs": None, "finish_reason": "length"}]
    assert reply["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
