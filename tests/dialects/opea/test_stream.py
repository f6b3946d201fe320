from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InferenceError, Malformed, ServerFailed, Truncated
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.opea.stream import OpeaStreamDecoder
from tests.servers.replies import chunk, usage_chunk

DONE = b"data: [DONE]\n\n"


def piece(text: str | bytes) -> bytes:
    """As a megaservice writes it: f"data: {repr(content.encode('utf-8'))}"."""
    raw = text.encode() if isinstance(text, str) else text
    return f"data: {raw!r}\n\n".encode()


def run(*pieces: bytes) -> list[Chunk]:
    decoder = OpeaStreamDecoder(lambda: 5.0)
    chunks = [each for data in pieces for each in decoder.feed(data)]
    return chunks + decoder.finish()


def fail(*pieces: bytes) -> tuple[list[Chunk], InferenceError]:
    decoder = OpeaStreamDecoder(lambda: 5.0)
    chunks = [each for data in pieces for each in decoder.feed(data)]
    with pytest.raises(InferenceError) as caught:
        decoder.finish()
    return chunks, caught.value


def text(chunks: list[Chunk]) -> str:
    return "".join(each.body["choices"][0]["delta"].get("content", "") for each in chunks)


def cut(stream: bytes, edges: list[int]) -> list[bytes]:
    edges = sorted(edges)
    return [stream[start:stop] for start, stop in zip([0, *edges], [*edges, len(stream)], strict=True)]


def test_pieces_become_chunks_and_the_end_has_its_reason() -> None:
    first, second, last = run(piece("Pa"), piece("ris"), DONE)
    assert first.body == {
        "id": "chatcmpl-5000000",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Pa"}, "finish_reason": None}],
    }
    assert second.body["choices"][0]["delta"] == {"content": "ris"}
    assert last.body["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8), st.data())
def test_every_text_is_read_however_the_bytes_are_cut(words: list[str], data: st.DataObject) -> None:
    stream = b"".join(map(piece, words)) + DONE
    edges = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    assert text(run(*cut(stream, edges))) == "".join(words)


def test_a_stream_is_the_same_cut_at_every_byte() -> None:
    stream = piece('it\'s "quoted"\n\t\\ ☃') + piece('"') + piece("'") + DONE
    assert text(run(*cut(stream, list(range(len(stream)))))) == 'it\'s "quoted"\n\t\\ ☃"\''


def test_a_character_may_be_cut_over_two_pieces() -> None:
    snowman = "☃".encode()
    assert text(run(piece(snowman[:1]), piece(snowman[1:]), DONE)) == "☃"


def test_a_stream_that_ends_within_a_character_is_truncated() -> None:
    assert isinstance(fail(piece("x"), piece("☃".encode()[:1]), DONE)[1], Truncated)


def test_a_piece_that_is_no_utf_8_is_malformed() -> None:
    chunks, failure = fail(piece("x"), piece(b"\xff\xff"), DONE)
    assert len(chunks) == 1
    assert isinstance(failure, Malformed)


@pytest.mark.parametrize("raw", [b"plain words", b"b'", b"b'open", b"{not json", b'{"ops": []}'])
def test_what_is_in_no_notation_is_text_as_it_is(raw: bytes) -> None:
    # GenAIComps 1.5, orchestrator.py, fake_stream: a guardrail's text stands there without any escapes.
    assert text(run(b"data: " + raw + b"\n\n", DONE)) == raw.decode()


def test_an_end_before_any_text_is_a_failure_of_the_service() -> None:
    assert isinstance(fail(DONE)[1], ServerFailed)


@pytest.mark.parametrize("stream", [b"", piece("x"), piece("x") + b"data: [DO"])
def test_an_end_without_done_is_truncated(stream: bytes) -> None:
    assert isinstance(fail(stream)[1], Truncated)


def test_done_without_its_empty_line_is_the_end() -> None:
    assert text(run(piece("x") + b"data: [DONE]")) == "x"


def test_an_error_in_the_middle_is_its_typed_error() -> None:
    chunks, failure = fail(piece("x"), b'data: {"error": {"message": "boom", "code": 503}}\n\n', DONE)
    assert (len(chunks), failure.kind) == (1, "overloaded")
    assert "boom" in failure.message


def test_nothing_after_done_is_read() -> None:
    assert text(run(piece("x") + DONE + piece("y"), piece("z"))) == "x"


def test_chunks_in_openais_form_are_passed_on() -> None:
    bodies = [chunk("Pa"), chunk("ris"), chunk(None, "length"), usage_chunk(7, 2)]
    stream = b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in bodies) + DONE
    for edges in ([], list(range(len(stream)))):
        chunks = run(*cut(stream, edges))
        assert [each.body for each in chunks] == bodies
        assert chunks[-1].usage == Usage(7, 2)


def test_openais_form_without_its_end_is_truncated() -> None:
    assert isinstance(fail(b"data: " + msgspec.json.encode(chunk("x")) + b"\n\n")[1], Truncated)
