from __future__ import annotations

from contextlib import suppress
from email import policy
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media
from engine.dialects.codecs.multipart import form_fields, read_form, write_form

FILE = Media(b"\r\n--\r\n\x00\xff", "a.wav", "audio/wav")


def test_pythons_own_parser_reads_the_form() -> None:
    content, kind = write_form([("model", "m"), ("file", FILE), ("prompt", "Zoë\r\nand ☃")])
    message = BytesParser(policy=policy.HTTP).parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + content)
    parts = [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in message.iter_parts()  # type: ignore[attr-defined]
    ]
    assert parts == [
        ("model", None, b"m"),
        ("file", "a.wav", FILE.data),
        ("prompt", None, "Zoë\r\nand ☃".encode()),
    ]


names = st.text(st.characters(codec="utf-8", exclude_characters="[]%\\\x00"), min_size=1, max_size=8)
files = st.builds(Media, st.binary(max_size=60), names, st.sampled_from(["audio/wav", "image/png"]))


@given(st.lists(st.tuples(names, st.text(st.characters(codec="utf-8"), max_size=30) | files), max_size=5))
def test_what_was_written_is_read(fields: list[tuple[str, str | Media]]) -> None:
    content, kind = write_form(fields)
    assert read_form(content, kind) == fields


def test_the_boundary_is_in_no_file() -> None:
    inner, _ = write_form([("a", "b")])
    content, kind = write_form([("file", Media(inner, "form", "text/plain")), ("x", "y")])
    assert read_form(content, kind) == [("file", Media(inner, "form", "text/plain")), ("x", "y")]


def test_the_same_fields_make_the_same_bytes() -> None:
    assert write_form([("file", FILE)]) == write_form([("file", FILE)])


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("x", [("f", "x")]),
        (True, [("f", "true")]),
        (False, [("f", "false")]),
        (0.5, [("f", "0.5")]),
        (None, []),
        (["a", "b"], [("f[]", "a"), ("f[]", "b")]),
        ({"type": "auto", "n": 2}, [("f[type]", "auto"), ("f[n]", "2")]),
        (FILE, [("f", FILE)]),
        ([FILE], [("f[]", FILE)]),
    ],
)
def test_lists_and_objects_are_written_as_openais_clients_do(value: Any, fields: list[Any]) -> None:
    assert form_fields("f", value) == fields


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        (b"", "multipart/form-data", "no boundary"),
        (b"", "multipart/form-data; boundary=x", "cut off"),
        (b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb', "multipart/form-data; boundary=x", "cut off"),
        (b"--x\r\n\r\nb\r\n--x--\r\n", "multipart/form-data; boundary=x", "without a name"),
        (
            b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--',
            "multipart/form-data; boundary=x",
            "body.a: not UTF-8",
        ),
    ],
)
def test_a_form_that_can_not_be_read_is_refused(content: bytes, kind: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        read_form(content, kind)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_refused(content: bytes) -> None:
    for form in (content, b"--x\r\n" + content + b"\r\n--x--"):
        with suppress(InvalidRequest):
            read_form(form, "multipart/form-data; boundary=x")


def test_what_comes_before_the_first_boundary_is_no_field() -> None:
    content = b'preamble\r\n--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\nepilogue'
    assert read_form(content, 'multipart/form-data; boundary="x"') == [("a", "b")]
