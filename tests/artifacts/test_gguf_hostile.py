"""A GGUF file with numbers that can't be true is a typed error that names the file."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.artifacts import gguf
from engine.core.errors import SetupError

HUGE = 2**60


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def file(*entries: bytes, tensors: bytes = b"", tensor_count: int = 0, count: int | None = None) -> bytes:
    counts = struct.pack("<IQQ", 3, tensor_count, len(entries) if count is None else count)
    return b"GGUF" + counts + b"".join(entries) + tensors


def nested(levels: int) -> bytes:
    return struct.pack("<IQ", 9, 1) * levels + struct.pack("<IQ", 0, 0)


HOSTILE = {
    "a key of an exabyte": file(text(b"k", HUGE)),
    "a text of an exabyte": file(entry(b"k", 8, text(b"", HUGE))),
    "a text of more than any": file(entry(b"k", 8, text(b"", 2**64 - 1))),
    "an array of an exabyte": file(entry(b"k", 9, struct.pack("<IQ", 10, HUGE))),
    "an array of more than any": file(entry(b"k", 9, struct.pack("<IQ", 10, 2**64 - 1))),
    "a million arrays in arrays": file(entry(b"k", 9, nested(1_000_000))),
    "as many entries as there are numbers": file(count=2**64 - 1),
    "as many tensors as there are numbers": file(tensor_count=2**64 - 1),
    "a tensor of four billion dimensions": file(tensors=text(b"t") + struct.pack("<I", 2**32 - 1), tensor_count=1),
    "an alignment of 0": file(entry(b"general.alignment", 4, struct.pack("<I", 0))),
    "an alignment that is text": file(entry(b"general.alignment", 8, text(b"x"))),
    "an alignment that is no number": file(entry(b"general.alignment", 6, struct.pack("<f", float("nan")))),
    "a kind that is none": file(entry(b"k", 99, b"")),
    "a context length that is text": file(
        entry(b"general.architecture", 8, text(b"llama")), entry(b"llama.context_length", 8, text(b"x"))
    ),
    "a context length that is infinite": file(
        entry(b"general.architecture", 8, text(b"llama")),
        entry(b"llama.context_length", 6, struct.pack("<f", float("inf"))),
    ),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_numbers_that_cannot_be_true_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(SetupError, match=r"m\.gguf"):
        gguf.context_length(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(st.builds(entry, st.binary(max_size=4), st.integers(0, 13), st.binary(max_size=40)), max_size=4),
    tensors=st.binary(max_size=60),
    count=st.integers(0, 3),
)
def test_any_file_is_read_or_refused(entries: list[bytes], tensors: bytes, count: int, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file(*entries, tensors=tensors, tensor_count=count))
    with suppress(SetupError):
        gguf.context_length(path)
