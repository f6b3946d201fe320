"""The splice: wherever an answer was cut, and however the rest comes, it reads as one and says nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.middleware.rescue_splice import Splice

ANSWER = "The quick brown fox jumps over the lazy dog, again and again, until evening comes."
OTHER = "A slow green turtle swims under some busy ducks."
USAGE = {"prompt_tokens": 3, "completion_tokens": 9}


def said(text: str | None = None, finish: str | None = None, id: str = "a", **delta: Any) -> Chunk:
    delta = delta if text is None else {"content": text, **delta}
    return Chunk({"id": id, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def used(id: str = "a") -> Chunk:
    return Chunk({"id": id, "choices": [], "usage": USAGE}, Usage(3, 9))


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def whole(text: str, size: int = 3, id: str = "b") -> list[Chunk]:
    """A whole stream: whose turn it is, the text, the reason for its end, its usage."""
    opening = said("", id=id, role="assistant")
    return [opening, *(said(piece, id=id) for piece in pieces(text, size)), said(finish="stop", id=id), used(id)]


class Reader:
    """What a caller reads of streams that follow one another."""

    def __init__(self) -> None:
        self.splice = Splice()
        self.got: list[Chunk] = []

    def read(self, chunks: list[Chunk]) -> Reader:
        for chunk in chunks:
            if self.splice.passes(chunk):
                self.got.append(chunk)
            self._take()
        return self

    def end(self) -> Reader:
        self.splice.end()
        self._take()
        return self

    def _take(self) -> None:
        while (ready := self.splice.take()) is not None:
            self.got.append(ready)

    def join(self, target: str = "t", continued: bool = True) -> Reader:
        self.splice.join(target, continued=continued)
        return self

    @property
    def counted(self) -> list[Chunk]:
        """What counts: all from the last new beginning on."""
        marks = [index for index, chunk in enumerate(self.got) if chunk.restarted]
        return self.got[marks[-1] + 1 :] if marks else self.got

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.counted for choice in chunk.body["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def finishes(self) -> list[str]:
        choices = [choice for chunk in self.counted for choice in chunk.body["choices"]]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def marks(self) -> list[Any]:
        return [chunk.body["engine"] for chunk in self.got if "engine" in chunk.body]


def begun(cut: int, size: int = 4) -> Reader:
    """A stream that was cut after so many characters."""
    return Reader().read([said("", role="assistant"), *(said(piece) for piece in pieces(ANSWER[:cut], size))])


def reads_as_one(reader: Reader, text: str = ANSWER) -> None:
    assert reader.text == text
    assert reader.finishes == ["stop"]
    assert sum(chunk.usage is not None for chunk in reader.counted) == 1
    assert len({chunk.body["id"] for chunk in reader.counted}) == 1
    assert reader.splice.text == text
    assert reader.splice.finished
    assert reader.splice.chunks == len(reader.counted)
    for chunk in reader.counted[1:]:
        assert chunk.usage or chunk.body["choices"][0]["finish_reason"] or chunk.body["choices"][0]["delta"]["content"]


# -- every place where a stream can be cut ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_target_that_goes_on_goes_on_wherever_it_was_cut(size: int) -> None:
    for cut in range(1, len(ANSWER) + 1):
        reader = begun(cut).join().read(whole(ANSWER[cut:], size)).end()
        reads_as_one(reader)
        assert not any(chunk.restarted for chunk in reader.got)
        assert reader.marks == [{"rescue": "continued", "target": "t"}]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_what_a_target_repeats_from_the_very_start_is_left_out(size: int) -> None:
    for cut in range(1, len(ANSWER) + 1):
        reader = begun(cut).join().read(whole(ANSWER, size)).end()
        reads_as_one(reader)
        assert reader.marks == [{"rescue": "continued", "target": "t"}]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("overlap", [8, 9, 20, 40])
def test_what_a_target_repeats_of_the_end_is_left_out(size: int, overlap: int) -> None:
    for cut in range(overlap, len(ANSWER) + 1):
        reads_as_one(begun(cut).join().read(whole(ANSWER[cut - overlap :], size)).end())


def test_a_repetition_of_a_few_characters_may_be_chance_and_is_kept() -> None:
    for size in (3, 100):
        reader = begun(40).join().read(whole(ANSWER[33:], size)).end()
        assert reader.text == ANSWER[:40] + ANSWER[33:]
    reader = begun(40).join().read([said("", id="b", role="assistant"), said(ANSWER[33:38], id="b")])
    assert reader.text == ANSWER[:40] + ANSWER[33:38]  # nothing is held back for it


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_target_that_says_the_same_again_is_not_heard_twice(size: int) -> None:
    for cut in range(1, len(ANSWER) + 1):
        reader = begun(cut).join(continued=False).read(whole(ANSWER, size)).end()
        reads_as_one(reader)
        assert not any(chunk.restarted for chunk in reader.got)
        assert reader.marks == [{"rescue": "repeated", "target": "t"}]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("other", [OTHER, ANSWER[:20] + "cat.", ANSWER[:20], ""])
def test_a_target_that_says_something_else_begins_anew_and_says_so(size: int, other: str) -> None:
    for cut in range(21, len(ANSWER) + 1):
        reader = begun(cut).join(continued=False).read(whole(other, size)).end()
        reads_as_one(reader, other)
        (mark,) = [chunk for chunk in reader.got if chunk.restarted]
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        assert mark.body == {"id": "b", "choices": [choice], "engine": {"rescue": "restarted", "target": "t"}}
        assert reader.marks == [mark.body["engine"]]


def test_before_the_first_word_there_is_nothing_to_compare() -> None:
    for continued in (False, True):
        reads_as_one(begun(0).join(continued=continued).read(whole(OTHER)).end(), OTHER)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["one ", "two ", "three "]), min_size=1, max_size=30),
    st.integers(0, 200),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_whatever_the_words_the_same_again_is_heard_once(words: list[str], at: int, size: int, other: int) -> None:
    """Also where words repeat themselves: a whole answer is compared from its start, without a guess."""
    text = "".join(words)
    cut = at % (len(text) + 1)
    reader = Reader().read([said(piece) for piece in pieces(text[:cut], size)])
    reader.join(continued=False).read(whole(text, other)).end()
    assert reader.text == text
    assert reader.finishes == ["stop"]


def test_the_repeated_end_is_looked_for_in_the_last_characters_only() -> None:
    text = "".join(f"{number:05}" for number in range(400))
    cut = 1500
    for overlap in (400, 300):
        reader = Reader().read([said(text[:cut])]).join().read(whole(text[cut - overlap :], 50)).end()
        assert reader.text == text
    reader = Reader().read([said(text[:cut])]).join().read(whole(text[cut - 401 :], 50)).end()
    assert reader.text == text[:cut] + text[cut - 401 :]


def test_until_another_stream_joins_every_chunk_passes_as_it_is() -> None:
    chunks = [*whole(ANSWER), said(finish="stop", id="c")]
    got = Reader().read(chunks).got
    assert len(got) == len(chunks)
    assert all(one is other for one, other in zip(got, chunks, strict=True))


# -- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True])
def test_a_finish_that_was_said_is_not_said_again_but_the_usage_comes(together: bool) -> None:
    reader = begun(len(ANSWER)).read([said(finish="stop")])
    assert reader.splice.finished
    again = whole(ANSWER)
    if together:
        again[-2:] = [Chunk({**again[-2].body, "usage": USAGE}, Usage(3, 9))]
    reader.join(continued=False).read(again).end()
    reads_as_one(reader)
    assert reader.got[-1].body["choices"] == []
    assert reader.got[-1].body["usage"] == USAGE


def test_a_finish_that_came_with_the_last_word_is_not_said_again() -> None:
    for last in (0, 4):
        text = ANSWER[: len(ANSWER) - last]
        reader = Reader().read([said(text), said(ANSWER[len(text) :], finish="stop")])
        assert reader.splice.finished
        reader.join(continued=False).read([said(ANSWER, id="b"), said("", finish="stop", id="b"), used("b")]).end()
        reads_as_one(reader)


def test_an_answer_that_goes_on_after_its_finish_finishes_again() -> None:
    reader = begun(10).read([said(finish="length")]).join(continued=False).read(whole(ANSWER)).end()
    assert reader.text == ANSWER
    assert reader.finishes == ["length", "stop"]


def test_a_rest_that_has_no_text_only_finishes() -> None:
    reader = begun(len(ANSWER)).join().read(whole("")).end()
    reads_as_one(reader)


def test_a_stream_that_ends_without_a_finish_gives_what_it_had() -> None:
    reader = begun(40).join().read([said("", id="b"), said(ANSWER[30:40], id="b")])
    assert reader.text == ANSWER[:40]
    assert reader.end().text == ANSWER[:40]
    reader = begun(40).join(continued=False).read([said(ANSWER[:30], id="b")]).end()
    assert reader.text == ANSWER[:30]
    assert any(chunk.restarted for chunk in reader.got)
    reader = begun(40).join().end()
    assert reader.text == ANSWER[:40]


def test_the_last_word_and_the_finish_in_one_chunk_are_both_kept() -> None:
    reader = begun(40).join(continued=False).read([said(ANSWER, finish="stop", id="b"), used("b")]).end()
    reads_as_one(reader)
    reader = begun(len(ANSWER)).join(continued=False).read([said(ANSWER, finish="stop", id="b"), used("b")]).end()
    reads_as_one(reader)


# -- again and again --------------------------------------------------------------------------------------------------


def test_a_stream_that_was_rescued_may_be_rescued_again() -> None:
    reader = begun(20)
    reader.join("t1").read([said("", id="b", role="assistant"), said(ANSWER[20:40], id="b")])
    assert reader.splice.text == ANSWER[:40]
    reader.join("t2", continued=False).read(whole(ANSWER, id="c")).end()
    reads_as_one(reader)
    assert reader.marks == [{"rescue": "continued", "target": "t1"}, {"rescue": "repeated", "target": "t2"}]


def test_a_stream_that_broke_before_it_was_clear_where_it_belongs_leaves_nothing() -> None:
    reader = begun(40)
    reader.join("t1", continued=False).read([said(ANSWER[:10], id="b")])
    reader.join("t2").read(whole(ANSWER[40:], id="c")).end()
    reads_as_one(reader)
    assert reader.marks == [{"rescue": "continued", "target": "t2"}]


def test_a_mark_that_nobody_saw_is_not_given_to_another_answer() -> None:
    reader = begun(20).join("t1", continued=False).read(whole(ANSWER[:20])[:-2])
    assert reader.marks == []
    reader.join("t2", continued=False).read(whole(OTHER, id="c")).end()
    assert reader.marks == [{"rescue": "restarted", "target": "t2"}]


def test_a_usage_alone_is_no_finish_and_no_more_than_text() -> None:
    reader = Reader().read([said("x"), used()])
    assert not reader.splice.finished
    assert reader.splice.plain


def test_a_usage_that_comes_before_the_words_is_kept() -> None:
    first = Chunk({**said("", id="b", role="assistant").body, "usage": USAGE}, Usage(3, 0))
    reader = begun(30).join(continued=False).read([first, *whole(ANSWER)[1:]]).end()
    assert reader.text == ANSWER
    assert [chunk.usage for chunk in reader.got if chunk.usage] == [Usage(3, 0), Usage(3, 9)]


def test_after_a_new_beginning_only_that_counts() -> None:
    reader = begun(40).join("t1", continued=False).read(whole(OTHER)[:6])
    assert reader.splice.text == OTHER[:15]
    assert reader.splice.chunks == 6
    reader.join("t2").read(whole(OTHER[15:], id="c")).end()
    reads_as_one(reader, OTHER)


# -- more than text ---------------------------------------------------------------------------------------------------

CALL = [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": CALL},
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"function_call": {"name": "f"}},
        {"refusal": "no"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"images": [{"type": "image_url"}]},
        {"content": [{"type": "text", "text": "Hello"}]},
        {"content": "Hello", "tool_calls": CALL},
    ],
)
def test_what_is_more_than_text_can_only_begin_anew(delta: dict[str, Any]) -> None:
    for continued in (True, False):
        reader = Reader().read([said(**delta)])
        assert not reader.splice.plain
        reader.join(continued=continued).read(whole(ANSWER)).end()
        reads_as_one(reader, ANSWER)
        assert any(chunk.restarted for chunk in reader.got)


@pytest.mark.parametrize(
    "choices",
    [
        [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "x"}, "logprobs": {"content": []}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}] * 2,
    ],
)
def test_several_choices_or_probabilities_can_only_begin_anew(choices: list[Any]) -> None:
    reader = Reader().read([Chunk({"id": "a", "choices": choices})])
    assert not reader.splice.plain


def test_a_chunk_that_says_whose_turn_it_is_is_plain() -> None:
    reader = Reader().read([said("", role="assistant"), said(None, role="assistant"), said(None), said(None, "stop")])
    assert reader.splice.plain


def test_a_tool_call_in_the_rest_is_not_lost() -> None:
    for delta in ({"tool_calls": CALL}, {"role": "assistant", "content": None, "tool_calls": CALL}):
        reader = begun(40).join().read([said("", id="b", role="assistant"), said(id="b", **delta)])
        assert reader.got[-1].body["choices"][0]["delta"]["tool_calls"] == CALL
        assert reader.text == ANSWER[:40]
        assert not reader.splice.plain
        reader = begun(40).join(continued=False).read([said("", id="b"), said(id="b", **delta)])
        assert reader.got[-1].body["choices"][0]["delta"]["tool_calls"] == CALL
        assert reader.text == ""


def test_a_second_finish_of_several_choices_is_none_too_many() -> None:
    both = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]
    reader = Reader().read([said("x")]).join(continued=False).read([said("x", id="b")])
    reader.read([Chunk({"id": "b", "choices": [choice]}) for choice in both])
    assert reader.finishes == ["stop", "stop"]


def test_completions_are_joined_like_chats() -> None:
    def completion(text: str, id: str = "a", finish: str | None = None) -> Chunk:
        return Chunk({"id": id, "choices": [{"index": 0, "text": text, "finish_reason": finish}]})

    reader = Reader().read([completion(ANSWER[:30])])
    reader.join(continued=False).read([completion(ANSWER, "b"), completion("", "b", "stop")]).end()
    texts = [choice["text"] for chunk in reader.got for choice in chunk.body["choices"]]
    assert "".join(texts) == ANSWER
    assert [chunk.body["id"] for chunk in reader.got] == ["a"] * len(reader.got)
    assert Reader().read([completion(None)]).splice.text == ""  # type: ignore[arg-type]


def test_the_mark_of_a_new_beginning_is_a_chunk_like_any_other() -> None:
    def completion(text: str, id: str = "a") -> Chunk:
        return Chunk({"id": id, "object": "text_completion", "choices": [{"index": 0, "text": text}]})

    reader = Reader().read([completion("one")]).join(continued=False).read([completion("two", "b")])
    mark, again = reader.got[1:]
    assert mark.restarted
    assert mark.body == {
        "id": "b",
        "object": "text_completion",
        "choices": [{"index": 0, "text": "", "finish_reason": None}],
        "engine": {"rescue": "restarted", "target": "t"},
    }
    assert again.body == completion("two", "b").body


def test_what_was_delivered_is_not_edited_behind_the_callers_back() -> None:
    again = whole(ANSWER, 50)
    before = [repr(chunk.body) for chunk in again]
    begun(30).join(continued=False).read(again).end()
    assert [repr(chunk.body) for chunk in again] == before


def test_a_stream_without_ids_gets_none() -> None:
    reader = Reader().read([Chunk({"choices": [{"delta": {"content": ANSWER[:30]}}]})])
    reader.join(continued=False).read([Chunk({"choices": [{"delta": {"content": ANSWER}}]})]).end()
    assert all("id" not in chunk.body for chunk in reader.got)


def test_a_usage_in_the_held_chunks_comes_once_and_not_with_the_mark() -> None:
    first = Chunk({**said("", id="b", role="assistant").body, "usage": USAGE}, Usage(3, 0))
    reader = begun(30).join(continued=False).read([first, *whole(OTHER)[1:]]).end()
    (mark,) = [chunk for chunk in reader.got if chunk.restarted]
    assert "usage" not in mark.body
    assert [chunk.usage for chunk in reader.counted if chunk.usage] == [Usage(3, 0), Usage(3, 9)]


def test_events_with_a_type_begin_anew_and_say_so() -> None:
    def event(delta: str) -> Chunk:
        return Chunk({"type": "response.output_text.delta", "delta": delta})

    reader = Reader().read([event("one"), event("two")]).join(continued=True).read([event("one"), event("other")]).end()
    assert not reader.splice.plain
    assert [chunk.restarted for chunk in reader.got] == [False, False, True, False, False]
    assert reader.got[2].body == {"type": "engine.restarted", "engine": {"rescue": "restarted", "target": "t"}}
    assert [chunk.body.get("delta") for chunk in reader.got[3:]] == ["one", "other"]


def test_an_answer_in_sound_is_not_continued() -> None:
    reader = Reader().read([said(audio={"id": "audio_1", "data": "AA=="})])
    assert not reader.splice.plain
