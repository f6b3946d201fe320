"""Overrides that are plain text."""

from __future__ import annotations

import pytest

from engine.config.compose import compose
from engine.schemas.prompt import TextFile


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Rate: {{ a }}", "Rate: {{ a }}"),
        ("{{ a }}, isn't it? b=c: d", "{{ a }}, isn't it? b=c: d"),
        ('Say "yes" or \\"no\\"', 'Say "yes" or \\"no\\"'),
        ("ends with \\", "ends with \\"),
        ('"quoted, {{ a }}"', "quoted, {{ a }}"),
        ("[1, 2]", "[1, 2]"),
        ("1e3", "1e3"),
    ],
)
def test_a_prompt_is_a_text_as_it_comes(written: str, text: str) -> None:
    spec = compose([f"prompt.template={written}", f"prompt.system={written}"]).spec
    assert (spec.prompt.template, spec.prompt.system) == (text, text)


def test_a_prompt_may_be_null_or_a_file() -> None:
    spec = compose(["prompt.template=null", "prompt.system={file: ask.txt}"]).spec
    assert spec.prompt.template is None
    assert isinstance(spec.prompt.system, TextFile)
