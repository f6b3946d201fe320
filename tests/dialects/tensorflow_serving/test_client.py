from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest, Malformed
from engine.dialects.discovery import DiscoveryReply
from engine.dialects.tensorflow_serving.client import PredictDialect
from engine.dialects.tensorflow_serving.server import PredictServerDialect

CLIENT, SERVER = PredictDialect(lambda: 0.0), PredictServerDialect()
# TensorFlow Serving, "RESTful API", "Model Metadata API", shortened; the form is OVMS's too.
METADATA = (
    b'{"model_spec":{"name":"m","signature_name":"","version":"1"},"metadata":{"signature_def":{"@type":"t",'
    b'"signature_def":{"serving_default":{"inputs":{"x":{"dtype":"DT_INT64","tensor_shape":{"dim":[{"size":"-1",'
    b'"name":""},{"size":"4","name":""}],"unknown_rank":false},"name":"x:0"}},"outputs":{"y":{"dtype":"DT_FLOAT",'
    b'"tensor_shape":{"dim":[{"size":"-1","name":""}],"unknown_rank":false},"name":"y:0"}},"method_name":""}}}}}'
)
STATUS = b'{"model_version_status":[{"version":"1","state":"%s","status":{"error_code":"OK","error_message":""}}]}'


def sent(task: str, **body: Any) -> tuple[str, Any]:
    call = CLIENT.encode(task, body, model="m", stream=False)
    return call.path, msgspec.json.decode(call.content)


def decoded(task: str, reply: Any) -> Any:
    return CLIENT.decode(task, 200, {}, msgspec.json.encode(reply)).body


def test_texts_go_as_rows_of_the_only_input() -> None:
    assert sent("embedding", input=["a", "b"]) == ("/v1/models/m:predict", {"instances": ["a", "b"]})


def test_a_named_input_is_named_in_each_row() -> None:
    assert sent("embedding", input=["a", "b"], input_tensor="s")[1] == {"instances": [{"s": "a"}, {"s": "b"}]}


def test_tensors_go_as_columns() -> None:
    path, body = sent("tensors", inputs={"x": [[1, 2]], "y": {"shape": [1, 2], "datatype": "FP32", "data": [3, 4]}},
                      model_version=2)  # fmt: skip
    assert (path, body) == ("/v1/models/m/versions/2:predict", {"inputs": {"x": [[1, 2]], "y": [[3, 4]]}})


def test_tensors_go_as_rows_where_that_is_wanted() -> None:
    _, body = sent("tensors", inputs={"x": [[1, 2], [3, 4]], "y": [5, 6]}, row_format=True)
    assert body == {"instances": [{"x": [1, 2], "y": 5}, {"x": [3, 4], "y": 6}]}


def test_rows_of_different_numbers_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"row_format.*different numbers"):
        sent("tensors", inputs={"x": [1, 2], "y": [5]}, row_format=True)


@pytest.mark.parametrize("field", [{"outputs": ["y"]}, {"parameters": {"top": 3}}])
def test_what_the_wire_can_not_say_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="drop_unsupported"):
        sent("tensors", inputs={"x": [1]}, **field)


def test_the_signature_is_named() -> None:
    assert sent("tensors", inputs={"x": [1]}, parameters={"signature_name": "s"})[1]["signature_name"] == "s"


@pytest.mark.parametrize(
    "reply",
    [
        {"predictions": [[1.0, 2.0], [3.0, 4.0]]},
        {"outputs": [[1.0, 2.0], [3.0, 4.0]]},
        {"predictions": [{"embedding": [1.0, 2.0], "n": 1}, {"embedding": [3.0, 4.0], "n": 2}]},
        {"outputs": {"embedding": [[1.0, 2.0], [3.0, 4.0]], "n": [1, 2]}},
    ],
)
def test_vectors_are_read_from_rows_and_columns(reply: Any) -> None:
    assert [each["embedding"] for each in decoded("embedding", reply)["data"]] == [[1.0, 2.0], [3.0, 4.0]]


def test_tensors_get_shape_and_datatype_from_their_values() -> None:
    reply = {"outputs": {"a": [[1, 2]], "b": [0.5], "c": [True], "d": ["x", {"b64": "/w=="}]}}
    assert decoded("tensors", reply)["outputs"] == {
        "a": {"shape": [1, 2], "datatype": "INT64", "data": [1, 2]},
        "b": {"shape": [1], "datatype": "FP32", "data": [0.5]},
        "c": {"shape": [1], "datatype": "BOOL", "data": [True]},
        "d": {"shape": [2], "datatype": "BYTES", "data": ["x", {"b64": "/w=="}]},
    }


@pytest.mark.parametrize("reply", [{}, {"predictions": [[1.0], [1.0, 2.0]]}, {"outputs": {"a": [1, "x"]}}])
def test_a_reply_that_is_none_is_malformed(reply: Any) -> None:
    with pytest.raises(Malformed):
        decoded("tensors", reply)


def test_the_signature_and_the_state_are_read() -> None:
    server_info = CLIENT.server_info("m", [DiscoveryReply(200, METADATA), DiscoveryReply(200, STATUS % b"AVAILABLE")])
    assert server_info.found == "the model is available, inputs: x INT64 [-1, 4], outputs: y FP32 [-1]"
    assert server_info.defaults["metadata"]["inputs"][0]["datatype"] == "INT64"
    loading = CLIENT.server_info("m", [DiscoveryReply(404, b""), DiscoveryReply(200, STATUS % b"LOADING")])
    assert loading.found == "not available: m LOADING"


def test_the_configuration_lists_the_models() -> None:
    assert CLIENT.models(b'{"a": {"model_version_status": []}, "b": {}}') == ["a", "b"]
    assert CLIENT.models(SERVER.models(["a"])) == ["a"]


@given(
    st.dictionaries(st.sampled_from("xyz"), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                                                     min_size=2, max_size=2), min_size=1),
    st.booleans(),
)  # fmt: skip
def test_what_a_client_sends_is_what_a_server_reads(tensors: dict[str, list[float]], by_rows: bool) -> None:
    call = CLIENT.encode("tensors", {"inputs": tensors, "row_format": by_rows}, model="m", stream=False)
    found = SERVER.read(call.path, {"model": "m"}, {}, call.content)
    assert {name: each["data"] for name, each in found.body["inputs"].items()} == tensors
    outputs = {name: {"shape": [2], "datatype": "FP32", "data": [1.0, 0.5]} for name in ("a", "b")}
    reply = CLIENT.decode("tensors", 200, {}, SERVER.reply(found, {"outputs": outputs})).body
    assert reply["outputs"] == outputs


def test_an_embedding_comes_back_as_it_was() -> None:
    call = CLIENT.encode("embedding", {"input": ["a"]}, model="m", stream=False)
    found = SERVER.read(call.path, {"model": "m"}, {}, call.content)
    assert (found.task, found.body["input"]) == ("embedding", ["a"])
    reply = SERVER.reply(found, {"data": [{"index": 0, "embedding": [0.5, 1.0]}]})
    assert CLIENT.decode("embedding", 200, {}, reply).body["data"][0]["embedding"] == [0.5, 1.0]


@pytest.mark.parametrize("wire", [{}, {"instances": []}, {"instances": [{"a": 1}, {"b": 1}]}, {"inputs": {}}])
def test_what_can_not_be_understood_is_refused(wire: Any) -> None:
    with pytest.raises(InvalidRequest):
        SERVER.read("/v1/models/m:predict", {"model": "m"}, {}, msgspec.json.encode(wire))


def test_our_client_reads_the_pages_of_our_server() -> None:
    pages = [SERVER.page(each.path, {"model": "m"}, b"", ["m"]) for each in CLIENT.questions("m")]
    server_info = CLIENT.server_info("m", [DiscoveryReply(*page) for page in pages])
    assert server_info.found == "the model is available, inputs: text BYTES [-1], outputs: embedding FP32 [-1, -1]"
