from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from engine.core.errors import Malformed
from engine.tasks.tensors import pack


def packed(datatype: str, data: list[Any]) -> Any:
    body = {"outputs": {"x": {"shape": [len(data)], "datatype": datatype, "data": data}}}
    pack(body)
    return body["outputs"]["x"]["data"]


@pytest.mark.parametrize(("datatype", "form"), [("FP32", "<2f"), ("INT64", "<2q"), ("UINT8", "<2B"), ("BOOL", "<2?")])
def test_numbers_are_packed_as_their_bytes(datatype: str, form: str) -> None:
    assert base64.b64decode(packed(datatype, [1, 0])) == struct.pack(form, 1, 0)


def test_texts_stay_a_list() -> None:
    assert packed("BYTES", ["a", {"b64": "/w=="}]) == ["a", {"b64": "/w=="}]


def test_an_element_that_does_not_fit_is_malformed() -> None:
    with pytest.raises(Malformed, match="'x': an element is not a UINT8"):
        packed("UINT8", [300])
