"""What comes from outside can't steer a terminal."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from engine.core.printable import one_line, printable

STEERING = st.sampled_from(
    ["\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\r", "\x08", "\x7f", "\u202e", "\u2066", "\n", "\u2028"]
)
TEXTS = st.lists(st.text(max_size=5) | STEERING, max_size=6).map("".join)


@given(TEXTS)
def test_no_character_that_steers_is_left(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(character) != "Cc" or character in "\t\n" for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert len(one_line(text).splitlines()) <= 1


@given(TEXTS)
def test_json_stays_the_same_json(text: str) -> None:
    assert json.loads(printable(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_other_text_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text
