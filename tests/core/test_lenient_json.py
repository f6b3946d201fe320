"""engine/core/lenient_json.py: what a strict reader refuses and a lenient one reads."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lenient_json import MOST_DEPTH, read_again

ANSWER = '{"text": "fine"}'
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b'{"text": "fine", "deep": ' + b"[" * levels + b"]" * levels + b"}"


def changes(text: str | bytes) -> tuple[Any, list[str]]:
    return read_again(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("text", "value", "change"),
    [
        ('{"text": "cut \\ud83d"}', {"text": "cut �"}, "lone surrogates are read as U+FFFD"),
        ('{"cut \\ude00": 1}', {"cut �": 1}, "lone surrogates are read as U+FFFD"),
        ('{"text": "\\ud83d\\ude00 \\ud83d"}', {"text": "😀 �"}, "lone surrogates are read as U+FFFD"),
        ('{"x": NaN}', {"x": None}, "NaN is read as null"),
        ('{"x": [Infinity, 1]}', {"x": [None, 1]}, "Infinity is read as null"),
        ('{"x": -Infinity}', {"x": None}, "-Infinity is read as null"),
        ('{"x": 1e999}', {"x": None}, "a number out of range is read as null"),
        ("\ufeff" + ANSWER, {"text": "fine"}, "a byte order mark is left out"),
        ('{"text": "two\nlines\x07"}', {"text": "two\nlines\x07"}, "raw control characters are read as they are"),
        (ANSWER + "\n<!-- served by x -->", {"text": "fine"}, "data behind the value is left out"),
    ],
)
def test_what_is_nearly_json_is_read_and_told(text: str, value: Any, change: str) -> None:
    assert changes(text) == (value, [change])


@pytest.mark.parametrize(
    "text", ["", "fine", "<html>", '{"text": ', '"fine" and more', ANSWER + ANSWER, ANSWER + "\n[1]", b'{"x": "\xff"}']
)
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|data behind|can't decode"):
        changes(text)


@pytest.mark.parametrize("levels", [MOST_DEPTH - 1, 900, 1000, 3000])
def test_deep_nesting_is_cut(levels: int) -> None:
    value, told = changes(nested(levels))
    assert value["text"] == "fine"
    assert told == ([] if levels < MOST_DEPTH else [f"values below {MOST_DEPTH} levels are read as null"])
    assert len(msgspec.json.encode(value)) < 2 * MOST_DEPTH + 60


def test_bottomless_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        changes(b"[" * 1_000_000)


@given(values, st.booleans())
def test_whatever_pythons_json_writes_becomes_strict_json(value: Any, ascii_only: bool) -> None:
    text = json.dumps({"x": value}, ensure_ascii=ascii_only)
    read, _ = changes(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    assert msgspec.json.decode(msgspec.json.encode(read)) == read
