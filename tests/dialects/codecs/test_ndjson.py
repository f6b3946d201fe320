from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialects.codecs.ndjson import NdjsonDecoder


def decode(*pieces: bytes) -> list[bytes]:
    decoder = NdjsonDecoder()
    return [line for piece in pieces for line in decoder.feed(piece)]


def test_a_line_ends_with_a_line_feed() -> None:
    assert decode(b'{"a":1}\n{"b":2}\n{"c":3}') == [b'{"a":1}', b'{"b":2}']


def test_a_carriage_return_before_it_belongs_to_the_end() -> None:
    assert decode(b'{"a":1}\r\n{"b":2}\r', b"\n") == [b'{"a":1}', b'{"b":2}']


def test_empty_lines_are_skipped() -> None:
    assert decode(b'\n\r\n  \n{"a":1}\n\n') == [b'{"a":1}']


def test_a_byte_order_mark_is_skipped_also_when_cut() -> None:
    assert decode(b"\xef", b"\xbb", b'\xbf{"a":1}\n') == [b'{"a":1}']


def test_what_no_newline_closed_is_the_rest() -> None:
    decoder = NdjsonDecoder()
    decoder.feed(b'{"a":1}\n{"b"')
    decoder.feed(b":2}")
    assert decoder.rest() == b'{"b":2}'


@pytest.mark.parametrize("pieces", [[b"x" * 101], [b"x" * 60, b"x" * 60], [b"x" * 101 + b"\n"]])
def test_a_line_above_the_limit_stops_the_decoder(pieces: list[bytes]) -> None:
    decoder = NdjsonDecoder(max_line_bytes=100)
    assert decoder.feed(b"ok\n") == [b"ok"]
    assert [line for piece in pieces for line in decoder.feed(piece)] == []
    assert decoder.oversized
    assert decoder.feed(b"\nmore\n") == []


def test_a_line_of_just_the_limit_is_let_through() -> None:
    decoder = NdjsonDecoder(max_line_bytes=100)
    decoder.feed(b"x" * 50)
    assert decoder.feed(b"x" * 50 + b"\n") == [b"x" * 100]
    assert not decoder.oversized


texts = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@pytest.mark.slow
@given(st.lists(texts.map(str.strip), max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_lines_are_the_same_however_the_bytes_are_cut(lines: list[str], end: bytes, data: st.DataObject) -> None:
    stream = b"".join(line.encode() + end for line in lines)
    pieces = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        pieces.append(stream[:size])
        stream = stream[size:]
    whole = [line.encode().strip(b" \t\r") for line in lines]
    assert decode(*pieces) == [line for line in whole if line]
