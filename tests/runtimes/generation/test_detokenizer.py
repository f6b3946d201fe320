"""From tokens to text, with a tokenizer of bytes: each token is one byte of UTF-8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runtimes.generation.detokenizer import Detokenizer, advance


def decode_replacing(windows: list[list[int]]) -> list[str]:
    return [bytes(window).decode("utf-8", "replace") for window in windows]


def decode_ignoring(windows: list[list[int]]) -> list[str]:
    return [bytes(window).decode("utf-8", "ignore") for window in windows]


def spell(data: bytes, cuts: list[int], decode: object = decode_replacing, stop: tuple[str, ...] = ()) -> list[str]:
    """The pieces that come out when the bytes come in parts."""
    text = Detokenizer(stop)
    bounds = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    pieces, start = [], 0
    for end in bounds:
        text.push(list(data[start:end]))
        pieces.extend(advance([text], [end == len(data)], decode))  # type: ignore[arg-type]
        start = end
        if text.stopped:
            break
    return pieces


@pytest.mark.parametrize("decode", [decode_replacing, decode_ignoring])
@given(written=st.text(min_size=1), cuts=st.lists(st.integers(0, 200)))
def test_any_text_in_any_parts_comes_out_whole(decode: object, written: str, cuts: list[int]) -> None:
    pieces = spell(written.encode(), cuts, decode)
    assert "".join(pieces) == written.rstrip("\ufffd") or "".join(pieces) == written


def test_half_a_character_is_held_back() -> None:
    pieces = spell("a🙂b".encode(), [1, 2, 3, 4, 5])
    assert pieces == ["a", "", "", "", "🙂", "b"]


def test_a_character_cut_off_by_the_end_is_left_out() -> None:
    assert "".join(spell("ab🙂".encode()[:-1], list(range(6)))) == "ab"


def test_bytes_that_never_become_a_character_do_not_hold_the_rest_back() -> None:
    assert spell(b"\xff" * 40 + b"end", list(range(44)))[-1].endswith("d")


@given(
    before=st.text(alphabet="abST ", max_size=12).filter(lambda text: "STOP" not in text + "STO"),
    after=st.text(alphabet="abSTOP", max_size=6),
    cuts=st.lists(st.integers(0, 30)),
)
def test_nothing_of_a_stop_string_is_shown(before: str, after: str, cuts: list[int]) -> None:
    assert "".join(spell((before + "STOP" + after).encode(), cuts, stop=("STOP",))) == before


@given(written=st.text(alphabet="abSTO", max_size=20), cuts=st.lists(st.integers(0, 30)))
def test_the_beginning_of_a_stop_string_is_shown_when_it_goes_on_differently(written: str, cuts: list[int]) -> None:
    assert "".join(spell(written.encode(), cuts, stop=("STOP", "TSTP"))) == written.split("TSTP")[0]


def test_the_earliest_of_several_stop_strings_counts() -> None:
    assert "".join(spell(b"one two three", [3, 5], stop=("three", "two"))) == "one "
