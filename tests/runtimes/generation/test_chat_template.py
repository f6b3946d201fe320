"""Chat templates as transformers renders them, and what they refuse."""

from __future__ import annotations

import pytest

from engine.core.errors import InvalidRequest
from engine.runtimes.generation.chat_template import ChatTemplate

STRICT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Grüße <b>"}


def test_a_prompt_has_the_messages_the_special_tokens_and_the_generations_beginning() -> None:
    assert ChatTemplate(STRICT, {"bos_token": "<s>"}).render([USER]) == "<s>[user]Grüße <b>[assistant]"


def test_what_a_template_refuses_is_the_requests_fault_in_its_words() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(STRICT, {}).render([USER, SYSTEM])
    assert str(caught.value) == "body.messages[1].role: this model's chat template: System role not supported"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Grüße <b>"}]'),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", ""),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)
def test_a_template_has_what_transformers_gives_it(source: str, text: str) -> None:
    assert ChatTemplate(source, {}).render([USER]) == text


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{% set x = messages.append(1) %}"])
def test_a_hostile_template_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest, match="this model's chat template"):
        ChatTemplate(source, {}).render([USER])
