from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.dialects.codecs.sse import Event, SseDecoder


def decode(*pieces: bytes) -> list[Event]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def data_of(*pieces: bytes) -> list[bytes]:
    return [event.data for event in decode(*pieces)]


def test_an_event_ends_with_an_empty_line() -> None:
    assert decode(b"data: a\n\ndata: b\n\ndata: c\n") == [(b"", b"a"), (b"", b"b")]


def test_one_space_after_the_colon_is_not_data() -> None:
    assert data_of(b"data:a\n\ndata:  b\n\n") == [b"a", b" b"]


def test_several_data_lines_are_joined_with_newlines() -> None:
    assert data_of(b"data: a\ndata\ndata: b\n\n") == [b"a\n\nb"]


def test_an_event_has_its_name_and_the_next_one_has_not() -> None:
    assert decode(b"event: error\ndata: a\n\ndata: b\n\n") == [(b"error", b"a"), (b"", b"b")]


def test_comments_and_other_fields_are_skipped() -> None:
    assert data_of(b": keep-alive\n\nid: 1\nretry: 10\ndatabase: x\ndata: a\n\n") == [b"a"]


def test_a_byte_order_mark_is_skipped_also_when_cut() -> None:
    assert data_of(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == [b"a"]


def test_a_line_feed_that_belongs_to_the_last_carriage_return_is_no_empty_line() -> None:
    assert data_of(b"data: a\r", b"\ndata: b\r\n\r", b"\n") == [b"a\nb"]


def test_an_event_above_the_limit_stops_the_decoder() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: ok\n\ndata: " + b"x" * 60) == [(b"", b"ok")]
    assert not decoder.oversized
    assert decoder.feed(b"x" * 60) == []
    assert decoder.oversized


def test_many_small_lines_of_one_event_count_against_the_limit() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    for _ in range(11):
        decoder.feed(b"data: 0123456789\n")
    assert decoder.oversized


def test_an_event_of_just_the_limit_is_let_through() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: " + b"x" * 94) == []
    assert len(decoder.feed(b"\n\n")[0].data) == 94


def test_what_was_not_dispatched_is_the_rest() -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: a\n\ndata: [DO")
    decoder.feed(b"NE]")
    assert decoder.rest() == b"[DONE]"


texts = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), min_size=1)


@given(
    st.lists(st.lists(texts, min_size=1, max_size=3), max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data()
)
def test_events_are_the_same_however_the_bytes_are_cut(
    events: list[list[str]], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(
        b"".join(b"data: " + line.encode() + end for line in lines) + b": comment" + end + end for lines in events
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert data_of(*pieces) == ["\n".join(lines).encode() for lines in events]


tokens = st.sampled_from(
    [b"data:", b"data", b"event:", b":", b" ", b"\r", b"\n", b"\r\n", b"x", b"\xef\xbb\xbf", b"\xc3"]
)


@given(st.lists(tokens, max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_give_the_same_events_whole_or_cut(stream: bytes, places: list[int]) -> None:
    cuts = sorted(min(place, len(stream)) for place in places)
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*pieces) == decode(stream)
