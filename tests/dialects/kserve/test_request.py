from __future__ import annotations

import base64
import re
import struct
from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest
from engine.dialects.kserve.client import KServeDialect

CLIENT = KServeDialect(lambda: 0.0)


def metadata(*inputs: tuple[str, str, list[int]], outputs: tuple[tuple[str, str, list[int]], ...] = ()) -> Any:
    def side(entries: Any) -> Any:
        return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in entries]

    return {"inputs": side(inputs), "outputs": side(outputs)}


def sent(task: str = "tensors", **body: Any) -> Any:
    return msgspec.json.decode(CLIENT.encode(task, body, model="m", stream=False).content)


def refused(**body: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        sent(**body)
    return caught.value.message


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        ([[1, 2, 3], [4, 5, 6]], "INT64", [2, 3]),
        ([1, 2.5], "FP32", [2]),
        ([[True], [False]], "BOOL", [2, 1]),
        (["a", "ü"], "BYTES", [2]),
        (7, "INT64", []),
    ],
)
def test_shape_and_datatype_are_read_off_the_data(data: Any, datatype: str, shape: list[int]) -> None:
    (tensor,) = sent(inputs={"x": data})["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == (datatype, shape)


def test_the_models_metadata_says_a_datatype_that_the_row_does_not() -> None:
    body = sent(inputs={"x": [1, 2]}, metadata=metadata(("x", "FP32", [-1])))
    assert body["inputs"][0]["datatype"] == "FP32"


def test_flat_data_has_the_shape_that_is_said() -> None:
    (tensor,) = sent(inputs={"x": {"shape": [2, 1], "datatype": "INT8", "data": [1, 2]}})["inputs"]
    assert (tensor["shape"], tensor["data"]) == ([2, 1], [1, 2])


def test_data_may_be_base64_of_its_bytes() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -1.0)).decode()
    assert sent(inputs={"x": {"datatype": "FP32", "data": packed}})["inputs"][0]["data"] == [0.5, -1.0]


def test_bytes_that_are_no_text_go_behind_the_json() -> None:
    call = CLIENT.encode("tensors", {"inputs": {"x": [{"b64": "/w=="}]}}, model="m", stream=False)
    assert "inference-header-content-length" in call.headers
    assert call.content.endswith(b"\x01\0\0\0\xff")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": [[1], [1, 2]]}, "body.inputs.x.data: its rows differ"),
        ({"x": [1, "a"]}, "body.inputs.x.datatype: say which"),
        ({"x": {"shape": [3], "data": [1]}}, r"body.inputs.x.shape: \[3\] has 3 elements, the data has 1"),
        (
            {"x": {"datatype": "F32", "data": [1]}},
            "body.inputs.x.datatype: 'F32' is not a KServe datatype; one of: BF16",
        ),
        ({"x": {"datatype": "INT8", "data": [0.5]}}, "body.inputs.x.data: expected elements of INT8"),
        ({"x": {"datatype": "FP32", "data": "???"}}, "body.inputs.x.data: expected a list, or base64"),
        ({}, "body.inputs: expected tensors by name"),
        ([1], "body.inputs: expected tensors by name"),
    ],
)
def test_tensors_that_can_not_be_are_refused(inputs: Any, words: str) -> None:
    assert re.search(words, refused(inputs=inputs))


def test_the_texts_go_into_the_input_that_takes_texts() -> None:
    known = metadata(("mask", "INT64", [-1]), ("sentences", "BYTES", [-1, 1]))
    (tensor,) = sent("embedding", input=["a", "b"], metadata=known)["inputs"]
    assert (tensor["name"], tensor["shape"]) == ("sentences", [2, 1])


def test_what_the_configuration_names_wins_over_the_metadata() -> None:
    known = metadata(("a", "BYTES", [-1, 1]), ("b", "BYTES", [-1]))
    (tensor,) = sent("embedding", input="x", input_tensor="b", metadata=known)["inputs"]
    assert (tensor["name"], tensor["shape"]) == ("b", [1])


def test_a_model_that_takes_no_texts_is_asked_with_tensors() -> None:
    known = metadata(("input_ids", "INT64", [-1, -1]))
    assert "input_ids INT64 [-1, -1]" in (message := refused(task="embedding", input="x", metadata=known))
    assert "task=tensors" in message


def test_of_several_outputs_the_one_with_a_known_name_is_asked_for() -> None:
    known = metadata(("text", "BYTES", [-1]), outputs=(("logits", "FP32", [-1, 2]), ("embeddings", "FP32", [-1, 2])))
    assert sent("embedding", input="x", metadata=known)["outputs"][0]["name"] == "embeddings"


def test_the_version_is_part_of_the_path() -> None:
    call = CLIENT.encode("tensors", {"inputs": {"x": [1]}, "model_version": 2}, model="m", stream=False)
    assert call.path == "/v2/models/m/versions/2/infer"


def test_the_models_parameters_are_sent() -> None:
    assert sent(inputs={"x": [1]}, parameters={"top": 3})["parameters"] == {"top": 3, "binary_data_output": True}
