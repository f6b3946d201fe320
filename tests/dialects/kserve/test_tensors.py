from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialects.kserve.tensors import DATATYPES, HEADER, Tensor, read, split, write

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "FP16": st.floats(width=16, allow_nan=False),
    "BF16": st.integers(-64, 64).map(float),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    "BYTES": st.text().map(str.encode),
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}

# Triton, docs/protocol/extension_binary_data.md, "Examples": a request with a UINT32 tensor [2, 2] and a BOOL one [3].
REQUEST = (
    b'{"model_name": "mymodel", "inputs": [{"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": '
    b'{"binary_data_size": 16}}, {"name": "input1", "shape": [3], "datatype": "BOOL", "parameters": '
    b'{"binary_data_size": 3}}], "outputs": [{"name": "output0", "parameters": {"binary_data": true}}]}'
)
TAIL = struct.pack("<4I", 1, 2, 3, 4) + b"\x01\x00\x01"


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    rows, width = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    count = rows * width
    data = draw(st.lists(ELEMENTS[datatype], min_size=count, max_size=count))
    return Tensor(draw(st.text()), datatype, [rows, width], data)


def test_every_datatype_is_tried() -> None:
    assert ELEMENTS.keys() == DATATYPES


@given(st.lists(tensors(), max_size=3))
def test_what_is_written_as_bytes_is_what_is_read(given_tensors: list[Tensor]) -> None:
    content, headers = write({"id": "1"}, "inputs", given_tensors, binary=True)
    message, tail = split(headers, content)
    assert read(message["inputs"], tail) == given_tensors
    assert message["id"] == "1"


@given(st.lists(tensors(), max_size=3))
def test_what_is_written_as_json_is_what_is_read(given_tensors: list[Tensor]) -> None:
    finite = [each for each in given_tensors if not any(abs(x) == float("inf") for x in each.data if type(x) is float)]
    content, headers = write({}, "outputs", finite, binary=False)
    message, tail = split(headers, content)
    assert (headers, tail) == ({}, b"")
    assert read(message["outputs"], tail) == finite


def test_the_documents_example_is_read() -> None:
    message, tail = split({HEADER: str(len(REQUEST))}, REQUEST + TAIL)
    assert read(message["inputs"], tail) == [
        Tensor("input0", "UINT32", [2, 2], [1, 2, 3, 4]),
        Tensor("input1", "BOOL", [3], [True, False, True]),
    ]


def test_nested_rows_are_read_like_flat_ones() -> None:
    entry = {"name": "x", "shape": [2, 2, 1], "datatype": "FP32", "data": [[[1], [2]], [[3.5], [4]]]}
    assert read([entry], b"")[0].data == [1, 2, 3.5, 4]


@pytest.mark.parametrize(
    ("entry", "tail"),
    [
        ({"shape": [1], "datatype": "FP32", "data": [1]}, b""),
        ({"name": "x", "shape": [1], "datatype": "FP8", "data": [1]}, b""),
        ({"name": "x", "shape": [-1], "datatype": "FP32", "data": []}, b""),
        ({"name": "x", "shape": "2", "datatype": "FP32", "data": []}, b""),
        ({"name": "x", "shape": [2], "datatype": "FP32", "data": [1]}, b""),
        ({"name": "x", "shape": [1], "datatype": "FP32", "data": ["1"]}, b""),
        ({"name": "x", "shape": [1], "datatype": "BYTES", "data": [1]}, b""),
        ({"name": "x", "shape": [2], "datatype": "FP32", "data": [[1], 2]}, b""),
        ({"name": "x", "shape": [1], "datatype": "FP32"}, b""),
        ({"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}, b"more"),
        ({"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 8}}, b"1234"),
        ({"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": -1}}, b""),
        ({"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 3}}, b"123"),
        ({"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 4}}, b"1234"),
        ({"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}, b"\x02\0\0\0a"),
        ({"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 2}}, b"\x02\0"),
        (7, b""),
    ],
)
def test_a_tensor_that_does_not_fit_itself_is_refused(entry: Any, tail: bytes) -> None:
    with pytest.raises(ValueError, match=r"tensor|bytes behind the JSON"):
        read([entry], tail)


@pytest.mark.parametrize("said", ["9999", "-1", "x", "²", ""])
def test_a_length_that_does_not_fit_the_body_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=HEADER):
        split({HEADER: said}, b"{}")


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_make_it_fail_in_another_way(content: bytes, length: int) -> None:
    try:
        message, tail = split({HEADER: str(length)}, content)
        read(message, tail)
    except (ValueError, msgspec.DecodeError):
        return
